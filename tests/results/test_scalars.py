"""Scalars for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hand_made import task_record

from mist_ext.results.record import TaskRecord
from mist_ext.results.scalars import Scalars, require_tensorboard

RECORD = task_record(
    [2, 3],
    [80.0, 83.0],
    seconds={"score": None, "tune": 2.5},
    selected_fraction=0.05,
    kept_fraction={"mean": 0.1, "max": 0.2},
    changed_fraction_all={"mean": 0.005, "max": 0.006},
    peak_memory_bytes={"score": None, "tune": 1 << 30},
)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_is_added_can_be_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with Scalars(tmp_path / "new" / "folder") as scalars:
        for step in range(3):
            scalars.add("loss/tune", torch.tensor(1.5 - step), step)
    assert curves(tmp_path / "new" / "folder") == {"loss/tune": [(0, 1.5), (1, 0.5), (2, -0.5)]}


def test_a_task_is_on_the_disk_as_soon_as_it_is_added_without_what_was_not_measured(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    scalars = Scalars(tmp_path)
    scalars.add_task(msgspec.convert(RECORD, TaskRecord), 2)
    found = curves(tmp_path)  # the writer is still open
    scalars.close()
    assert {tag: points[0] for tag, points in found.items()} == {
        "accuracy/seen": (2, 81.5),
        "accuracy/seen top 5": (2, 100.0),
        "accuracy per task/1": (2, 80.0),
        "accuracy per task/2": (2, 83.0),
        "seconds/tune": (2, 2.5),
        "peak memory bytes/tune": (2, float(1 << 30)),
        "fraction/selected": (2, pytest.approx(0.05)),
        "fraction/kept": (2, pytest.approx(0.1)),
        "fraction/changed of all": (2, pytest.approx(0.005)),
    }


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def none_of_tensorboard(name: str, package: str | None = None) -> Any:
        return None if name == "tensorboard" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", none_of_tensorboard)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        require_tensorboard()
    with pytest.raises(ValueError, match="--tensorboard needs the package tensorboard"):
        Scalars(tmp_path / "never")
    assert not (tmp_path / "never").exists()
