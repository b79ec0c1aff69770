"""A cell of a benchmark (data, backbone, tuner, method), and the numbers that are reported of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mist_ext import metrics
from mist_ext.names import shown

WHOLE = "whole"  # in the place of a phase: all of a task


class Expected(NamedTuple):
    """What was published for a cell's protocol, in percent.

    Attributes
    ----------
    average_accuracy, last_accuracy : float or None
        None where it was not published.
    source : str
        Where it was published.
    """

    average_accuracy: float | None
    last_accuracy: float | None
    source: str


@dataclass(frozen=True)
class Run:
    """One seed of a cell: the tasks that it finished.

    Attributes
    ----------
    seed : int
    classes : tuple of tuple of int
        The classes of each task.
    seen : list of float
        Accuracy on the classes seen after each task, percent.
    matrix : list of list of float
        The accuracy matrix, percent.
    tasks : list of dict
        The tasks' records, for what is optional in them.
    """

    seed: int
    classes: tuple[tuple[Any, ...], ...]
    seen: list[float]
    matrix: list[list[float]]
    tasks: list[dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One combination of data, backbone, tuner and method, over its seeds.

    Attributes
    ----------
    source : str
        Where it was read, for messages.
    config : dict
        The configuration as it was written.
    runs : list of Run
        In the order of the file; runs without a finished task are left out.
    gaps : list of str
        What an interrupted run lacks; empty where the cell is complete.
    environment : dict
        Versions and device, as they were written; empty where they were not.
    """

    source: str
    config: dict[str, Any]
    runs: list[Run]
    gaps: list[str]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        return str(self.config["data"]["name"])

    @property
    def backbone(self) -> str:
        return str(self.config["backbone"]["name"])

    @property
    def tuner(self) -> str:
        return str(self.config["tuner"]["name"])

    @property
    def method(self) -> str:
        return str(self.config["method"]["name"])

    @property
    def name(self) -> str:
        return f"{self.data}-{self.tuner}-{self.method}"

    @property
    def title(self) -> str:
        """Of its figures, cut where names are long."""
        return " · ".join(shown(name, 40) for name in (self.data, self.tuner, self.method))

    def class_name(self, label: Any) -> str:
        """The name of a class by its number in the data set; the number where the run did not record names."""
        names = self.config["data"].get("class_names")
        known = isinstance(names, list) and isinstance(label, int) and 0 <= label < len(names)
        return shown(names[label] if known else label, 24)

    @property
    def expected(self) -> Expected | None:
        """The published expectation, where the configuration carries one."""
        given = self.config.get("expected")
        if given is None:
            return None
        return Expected(given.get("average_accuracy"), given.get("last_accuracy"), given["source"])

    @property
    def counted(self) -> list[Run]:
        """The runs that means are taken over: those with the most finished tasks."""
        return [run for run in self.runs if len(run.seen) == self.tasks]

    @property
    def tasks(self) -> int:
        """The number of tasks that the counted runs finished."""
        return max((len(run.seen) for run in self.runs), default=0)

    def last_by_seed(self) -> dict[int, float]:
        """A_last of each counted run."""
        return {run.seed: metrics.last_accuracy(run.seen) for run in self.counted}

    def seen_by_task(self) -> list[tuple[float, float]]:
        """Mean and standard deviation over seeds of the accuracy on the classes seen, after each task."""
        return [metrics.mean_std(values) for values in zip(*(run.seen for run in self.counted), strict=True)]

    def mean_matrix(self) -> list[list[float]]:
        """The accuracy matrix, averaged over seeds."""
        rows = zip(*(run.matrix for run in self.counted), strict=True)
        return [[metrics.mean_std(values)[0] for values in zip(*row, strict=True)] for row in rows]

    def fraction(self, name: str, of: str | None = None) -> float | None:
        """The mean of a fraction over tasks and seeds; None if never measured.

        A fraction that is recorded by its mean and maximum needs ``of``; for ``"max"`` the largest is taken.
        """
        values = [task.get(name) for run in self.counted for task in run.tasks]
        if of is not None:
            values = [value.get(of) if isinstance(value, Mapping) else None for value in values]
        numbers = [float(value) for value in values if value is not None]
        if not numbers:
            return None
        return max(numbers) if of == "max" else metrics.mean_std(numbers)[0]

    def backbone_change(self, name: str, last: bool = False) -> list[float]:
        """What the diagnosis found under a name: each counted run's mean over tasks, or its last task's value."""
        found = []
        for run in self.counted:
            values = [(task.get("backbone") or {}).get(name) for task in run.tasks]
            numbers = [float(value) for value in values if value is not None]
            if numbers:
                found.append(numbers[-1] if last else metrics.mean_std(numbers)[0])
        return found

    def peak_memory(self, phase: str) -> float | None:
        """The largest peak of a phase over tasks and seeds, in bytes; `WHOLE` for all phases. None if not measured."""
        peaks = [memory_by_phase(task).get(phase) for run in self.counted for task in run.tasks]
        return max((peak for peak in peaks if peak is not None), default=None)

    def seconds(self, phase: str) -> float | None:
        """The seconds of a phase, summed over tasks, averaged over seeds; None if there was no such phase."""
        totals = []
        for run in self.counted:
            spent = [(task.get("seconds") or {}).get(phase) for task in run.tasks]
            numbers = [float(value) for value in spent if value is not None]
            if numbers:
                totals.append(math.fsum(numbers))
        return metrics.mean_std(totals)[0] if totals else None


def memory_by_phase(task: Mapping[str, Any]) -> dict[str, float]:
    """A task's peak memory in bytes: of every phase that has one, and the largest as `WHOLE`.

    Files of earlier versions have one number for a task: it stands alone, as `WHOLE`.
    """
    recorded = task.get("peak_memory_bytes")
    if isinstance(recorded, Mapping):
        peaks = {phase: float(peak) for phase, peak in recorded.items() if peak is not None}
        return {**peaks, WHOLE: max(peaks.values())} if peaks else {}
    return {} if recorded is None else {WHOLE: float(recorded)}
