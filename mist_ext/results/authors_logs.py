"""The run logs that the authors of MIST published: what a run of the same protocol can be compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

FILE = Path(__file__).parents[1] / "assets" / "authors_run_logs.json"
SOURCE = "the authors' run log (repository of arXiv 2505.19943, not the paper's tables)"


class AuthorsRun(Struct):
    """One run, of one seed: accuracies in percent, after each task.

    Attributes
    ----------
    preset : str
        Which preset has its settings.
    accuracy_seen_per_task, top5_seen_per_task : list of float
        On all classes seen so far.
    accuracy_new_classes_per_task : list of float
        On the task's own classes.
    loss_per_task_and_epoch : list of list of float
        Means over an epoch's batches; the first epoch scores and updates nothing.
    """

    preset: str
    accuracy_seen_per_task: list[float]
    accuracy_new_classes_per_task: list[float]
    top5_seen_per_task: list[float]
    A_avg: float
    A_last: float
    A_tt: float
    loss_per_task_and_epoch: list[list[float]]


class _Logs(Struct):
    protocol: dict[str, Any]
    runs: dict[str, AuthorsRun]


@cache
def _logs() -> _Logs:
    return msgspec.json.decode(FILE.read_bytes(), type=_Logs)


def protocol() -> dict[str, Any]:
    """Return what all the runs share: data, classes_per_task, class_order_seed and more."""
    return _logs().protocol


def methods() -> list[str]:
    """Return the methods that there is a log of, each with MIST before it."""
    return list(_logs().runs)


def log_of(method: str) -> AuthorsRun:
    """Return the run of a method; KeyError if there is none."""
    return _logs().runs[method]
