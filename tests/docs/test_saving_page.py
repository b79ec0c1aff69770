"""The examples of docs/saving.md: an interrupted run ends with the same bits, and parts of a selection step as one."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mist_ext import Selection, SparseSGD

TEXT = (Path(__file__).parents[2] / "docs" / "saving.md").read_text(encoding="utf-8")
LOOP, PARTS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


class Killed(Exception):
    pass


def fresh() -> nn.Module:
    torch.manual_seed(0)
    layers = {"body": nn.Linear(40, 60), "relu": nn.ReLU(), "head": nn.Linear(60, 5)}
    return nn.Sequential(OrderedDict(layers))


def run(stop_in: int | None = None) -> nn.Module:
    """The page's loop, killed in an epoch."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        drawing = torch.Generator().manual_seed(epoch)
        for number in range(3):
            if epoch == stop_in and number == 1:
                raise Killed
            yield torch.randn(8, 40, generator=drawing), torch.randint(5, (8,), generator=drawing)

    model = fresh()
    exec(LOOP, {"model": model, "batches": batches, "loss_function": nn.functional.cross_entropy})
    return model


def test_the_loop_of_the_page_goes_on_after_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_bits: Callable
) -> None:
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    expected = run()
    monkeypatch.chdir(tmp_path)
    for epoch in (3, 7):
        with pytest.raises(Killed):
            run(stop_in=epoch)
        assert (tmp_path / "run.pt").exists()
    found = run()
    assert all(same_bits(p, q) for p, q in zip(found.parameters(), expected.parameters(), strict=True))
    assert not same_bits(found.body.weight, fresh().body.weight)


def test_the_two_optimisers_of_the_page_step_as_one(same_bits: Callable) -> None:
    models = [fresh(), fresh()]
    selection = Selection.magnitude(models[0].named_parameters(), 0.3)
    scope: dict[str, Any] = {"model": models[0], "selection": selection, "SparseSGD": SparseSGD}
    exec(PARTS, scope)
    named = list(models[1].named_parameters())
    groups = [{"params": named[:2], "lr": 3e-3}, {"params": named[2:], "lr": 1e-2}]
    one = SparseSGD(groups, selection)
    for step in range(4):
        images = torch.randn(8, 40, generator=torch.Generator().manual_seed(step))
        for model, optimizers in ((models[0], [scope["backbone"], scope["head"]]), (models[1], [one])):
            model(images).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert all(same_bits(p, q) for p, q in zip(*(m.parameters() for m in models), strict=True))
