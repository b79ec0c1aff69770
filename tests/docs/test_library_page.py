"""The few lines of docs/library.md give the bits of a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mist_ext import Selection, SparseSGD
from mist_ext.kernels import ops

TEXT = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
STEPS = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if block.startswith("def step")]
LR, MOMENTUM, DECAY, KEEP = 0.03, 0.9, 0.01, 0.25


@pytest.mark.parametrize(("drop", "name"), [("gradients", "step"), ("updates", "step_dropping_updates")])
def test_the_lines_of_the_page_give_the_bits_of_a_step(drop: str, name: str, same_bits: Callable) -> None:
    scope: dict[str, Any] = {}
    for text in STEPS:
        exec(text, scope)
    torch.manual_seed(0)
    ours, theirs = [nn.Parameter(torch.randn(40, 50)) for _ in range(2)]
    theirs.data.copy_(ours.data)
    selection = Selection.magnitude([("weight", ours)], 0.3)
    index = selection["weight"]
    assert index is not None
    positions, buffer = index.long(), torch.zeros(len(index))
    optimizer = SparseSGD([("weight", ours)], selection, LR, MOMENTUM, DECAY, KEEP, seed=7, drop=drop)
    for number in range(5):
        ours.grad = torch.randn(40, 50)
        theirs.grad = ours.grad.clone()
        kept = ops.keep_mask(7, 0, number, len(index), int(KEEP * 65536))
        assert 0 < int(kept.sum()) < len(index)
        optimizer.step()
        scope[name]([theirs], [positions], [buffer], [kept], LR, MOMENTUM, DECAY)
        assert same_bits(ours, theirs)
