"""Pre-training of an embedded backbone: it goes on where it was stopped, with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pretrain_on_scripts
import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(autouse=True)
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes of random ink, so that no font is needed."""
    ink = torch.randint(256, (4, 2, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pretrain_on_scripts, "choose", lambda: ["a", "b", "c", "d"])
    monkeypatch.setattr(pretrain_on_scripts, "render_classes", lambda characters: ink)


def train(folder: Path, *options: str) -> None:
    files = [f"--{name}={folder / name}" for name in ("state", "log", "out")]
    pretrain_on_scripts.main([*files, "--steps=6", "--batch=8", "--save-every=2", *options])


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    train(tmp_path / "whole")
    step, steps = pretrain_on_scripts.Training.step, iter(range(100))

    def stopped(self: pretrain_on_scripts.Training, *arguments: torch.Tensor) -> float:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(pretrain_on_scripts.Training, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "out").exists()
    train(tmp_path / "stopped")
    ours, theirs = (load_file(tmp_path / name / "out") for name in ("stopped", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    log = (tmp_path / "stopped" / "log").read_text()
    assert log == (tmp_path / "whole" / "log").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()] == [2, 4, 6]


def test_a_state_of_another_length_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(SystemExit, match="a training of 6 steps, not of 8"):
        train(tmp_path, "--steps=8")
