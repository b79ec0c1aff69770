"""The lines of docs/deltas.md that apply a delta without the package do so on a plain timm model."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned_models import chain_of_tasks

from mist_ext.deltas import TaskDelta, state_digest

TEXT = (Path(__file__).parents[2] / "docs" / "deltas.md").read_text(encoding="utf-8")
ALONE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[-1]


def test_a_delta_is_applied_without_this_package(tmp_path: Path) -> None:
    """To a plain timm model, by lines that import torch and safetensors alone."""
    assert set(re.findall(r"^(?:import|from) (\w+)", ALONE, re.MULTILINE)) == {"json", "torch", "safetensors"}
    models, chain = chain_of_tasks(2)
    model = copy.deepcopy(models[0])
    # A gap of 255 and more stands elsewhere in a code.
    weight = torch.zeros(3000)
    weight[[0, 254, 256, 511, 512, 2999]] = 1
    chain.append(TaskDelta.between({"w": torch.zeros(3000)}, {"w": weight}))
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mist_ext", None)
        exec(ALONE, scope)
    for number, delta in enumerate(chain):
        delta.save(tmp_path / f"{number}.safetensors")
    for number in (0, 1):
        scope["apply"](model, tmp_path / f"{number}.safetensors")
    assert state_digest(model) == state_digest(models[-1])

    class Single(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(3000))

    single = Single()
    scope["apply"](single, tmp_path / "2.safetensors")
    assert torch.equal(single.w, weight)
