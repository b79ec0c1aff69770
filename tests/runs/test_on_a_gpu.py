"""Runs on a GPU: the same bits twice, and beside the CPU the same counts and nearly the same accuracies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import run, weights
from torch.utils.data import Dataset

from mist_ext import backbones, data
from mist_ext.config import TuningOptions
from mist_ext.data.stream import Stream
from mist_ext.selection import Selection
from mist_ext.tuners.mist import MIST

pytestmark = pytest.mark.gpu
GPU = "cuda"


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    every_nth_digit(4)


def tasks(folder: Path) -> list[dict[str, Any]]:
    file, *_ = folder.glob("*/results.json")  # the methods have the tuner in common
    (seed,) = json.loads(file.read_text())["runs"]
    return seed["tasks"]


def last_accuracies(folder: Path) -> dict[str, float]:
    found = {}
    for file in sorted(folder.glob("*/results.json")):
        (seed,) = json.loads(file.read_text())["runs"]
        found[file.parent.name] = seed["last_accuracy"]
    return found


def test_a_deterministic_run_repeats_its_bits(tmp_path: Path, same_bits: Callable) -> None:
    for name in ("once", "again"):
        run(tmp_path / name, device=GPU, deterministic=True)
    once, again = (weights(tmp_path / name) for name in ("once", "again"))
    assert once.keys() == again.keys()
    assert all(same_bits(tensor, again[name]) for name, tensor in once.items())
    assert last_accuracies(tmp_path / "once") == last_accuracies(tmp_path / "again")


def test_it_selects_and_keeps_as_many_as_the_cpu_and_learns_as_much(tmp_path: Path) -> None:
    run(tmp_path / "gpu", device=GPU, weight_gradients="dense")
    run(tmp_path / "cpu", device="cpu", weight_gradients="dense")
    for ours, theirs in zip(tasks(tmp_path / "gpu"), tasks(tmp_path / "cpu"), strict=True):
        counts, expected = ([entry["selected"] for entry in task["selection"]] for task in (ours, theirs))
        assert counts == expected
        assert ours["kept_fraction"] == theirs["kept_fraction"]  # drawn by position in the selection, on any device
    cpu = last_accuracies(tmp_path / "cpu")
    for name, accuracy in last_accuracies(tmp_path / "gpu").items():
        assert accuracy == pytest.approx(cpu[name], abs=3)  # percent: at the border, rounding decides what is selected


def selection(device: str, images: Dataset) -> Selection:
    """What MIST selects with the embedded backbone."""
    backbone = backbones.create("vit_nano", "pretrained").to(device)
    tuner = MIST(backbone, TuningOptions(epochs=2, in_backward=False), 1)
    return tuner.select(images, tuner.begin_task(images))


def test_scores_choose_nearly_the_same_entries() -> None:
    (task,) = Stream(data.load("digits"), 10, 1)
    gpu, cpu = selection(GPU, task.train), selection("cpu", task.train)
    shared = sum(int(torch.isin(gpu[name].cpu(), cpu[name]).sum()) for name in cpu.by_score)
    assert shared > 0.98 * sum(cpu.count(name) for name in cpu.by_score)
