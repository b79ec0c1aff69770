"""A plug-in that overrides `select` alone and leaves blocks out: what it leaves out is not tuned, and all is saved."""

from __future__ import annotations

import copy
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from slow import first_is_quick

from mist_ext import backbones, data, tuners
from mist_ext.config import Config, TuningOptions
from mist_ext.data.stream import Stream
from mist_ext.runs import benchmark, checkpoint
from mist_ext.runs.interruption import Checkpointer, Interrupted
from mist_ext.selection import Selection
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners.mist import MIST

LAST = "blocks.5."


class LastBlock(MIST):
    """MIST on the last block, and the projector."""

    def select(self, *arguments: Any) -> Selection:
        selection = super().select(*arguments)
        self.to_freeze = Selection({}, {})
        chosen = [name for name in selection if name.startswith((LAST, "projector."))]
        return Selection({n: selection[n] for n in chosen}, {n: selection.shape[n] for n in chosen})


class BlocksAlone(MIST):
    """It forgets the projector."""

    def select(self, *arguments: Any) -> Selection:
        selection = super().select(*arguments)
        chosen = [name for name in selection if name.startswith(LAST)]
        return Selection({n: selection[n] for n in chosen}, {n: selection.shape[n] for n in chosen})


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch, every_nth_digit: Callable[[int], None]) -> None:
    every_nth_digit(12)
    monkeypatch.setitem(sys.modules, "plug_in", SimpleNamespace(LastBlock=LastBlock))
    monkeypatch.setitem(tuners.TUNERS, "last_block", "plug_in:LastBlock")


@pytest.mark.parametrize(
    ("kind", "options"),
    first_is_quick(
        [
            (LastBlock, {}),
            (BlocksAlone, {}),
            (LastBlock, {"in_backward": True}),
            (LastBlock, {"dynamics": "published"}),
            (LastBlock, {"precision": "bf16-pure"}),
            (BlocksAlone, {"dynamics": "published"}),
        ]
    ),
    ids=lambda value: ",".join(value) or "exact" if isinstance(value, dict) else value.__name__,
)
def test_what_is_not_selected_is_left_alone(
    kind: type[MIST], options: dict, every_nth_digit: Callable, same_bits: Callable, tmp_path: Path
) -> None:
    every_nth_digit(24)
    stream = Stream(data.load("digits"), 5, 1993)
    t = kind(backbones.create("vit_nano", "pretrained"), TuningOptions(batch_size=30, epochs=3, **options), 1)
    before = copy.deepcopy(t.backbone.state_dict())

    def save() -> None:
        assert checkpoint.save(tmp_path, t.state_dict()) is not None

    t.callbacks = Callbacks(checkpoint_if_due=save)
    for task in stream.tasks:
        t.tune(task.train)
    changed = [name for name, value in t.backbone.state_dict().items() if not same_bits(value, before[name])]
    assert changed
    assert all(name.startswith(LAST) for name in changed)
    assert all(name.startswith((LAST, "projector.")) for name in t.history.strikes)
    assert all(p.grad is None and p.requires_grad for _, p in t.named_parameters())


def test_a_parameter_that_is_frozen_from_the_start_is_no_other_case(every_nth_digit: Callable, tmp_path: Path) -> None:
    every_nth_digit(24)
    backbone = backbones.create("vit_nano", "pretrained")
    backbone.pos_embed.requires_grad_(False)
    t = MIST(backbone, TuningOptions(batch_size=30, epochs=2), 1)
    t.callbacks = Callbacks(checkpoint_if_due=lambda: checkpoint.save(tmp_path, t.state_dict()) and None)
    t.tune(Stream(data.load("digits"), 5, 1993).tasks[0].train)
    assert not backbone.pos_embed.requires_grad


@pytest.mark.usefixtures("plugged_in")
def test_its_run_is_saved_and_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tuner": ["last_block"], "method": ["simplecil"], "seeds": [1], "epochs": 2, "save": "all"}

    def run(folder: Path) -> dict[str, torch.Tensor]:
        benchmark.run(Config(out=str(folder), **options), Console(file=io.StringIO()))
        return weights(folder)

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return load_file(folder / "digits-last_block-simplecil" / "classifier-seed1.safetensors")

    expected = run(tmp_path / "whole")
    original, calls = Checkpointer.save_if_due, iter(range(1000))

    def save_if_due(self: Checkpointer) -> None:
        if next(calls) in (5, 9):  # while it tunes
            self._stop = signal.SIGTERM
        original(self)

    monkeypatch.setattr(Checkpointer, "save_if_due", save_if_due)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped")
    with pytest.raises(Interrupted):
        benchmark.resume(tmp_path / "stopped", Console(file=io.StringIO()))
    assert list((tmp_path / "stopped" / "checkpoint").iterdir())
    benchmark.resume(tmp_path / "stopped", Console(file=io.StringIO()))
    found = weights(tmp_path / "stopped")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
