"""An experiment of a benchmark (data, backbone, tuner, method), and the numbers that are reported of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from mist_ext.results import metrics
from mist_ext.results.record import Described, Expected, RunRecord, TaskRecord
from mist_ext.system.names import shown

WHOLE = "whole"  # in the place of a phase: all of a task


@dataclass(frozen=True)
class Experiment:
    """One combination of data, backbone, tuner and method, over its seeds.

    Attributes
    ----------
    source : str
        Where it was read, for messages.
    config : Described
        The configuration.
    runs : list of RunRecord
        In the order of the file; runs without a finished task are left out.
    gaps : list of str
        What an interrupted run lacks; empty where the experiment is complete.
    environment : dict
        Versions and device, as they were written; empty where they were not.
    """

    source: str
    config: Described
    runs: list[RunRecord]
    gaps: list[str]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        return str(self.config.data["name"])

    @property
    def backbone(self) -> str:
        return str(self.config.backbone["name"])

    @property
    def tuner(self) -> str:
        return str(self.config.tuner["name"])

    @property
    def method(self) -> str:
        return str(self.config.method["name"])

    @property
    def name(self) -> str:
        return f"{self.data}-{self.tuner}-{self.method}"

    @property
    def title(self) -> str:
        """Of its figures, cut where names are long."""
        return " · ".join(shown(name, 40) for name in (self.data, self.tuner, self.method))

    def class_name(self, label: Any) -> str:
        """The name of a class by its number in the data set; the number where the run did not record names."""
        names = self.config.data.get("class_names")
        if isinstance(names, list) and isinstance(label, int) and 0 <= label < len(names):
            return shown(names[label], 24)
        return shown(label, 24)

    @property
    def expected(self) -> Expected | None:
        """The published expectation, where the configuration carries one."""
        return self.config.expected or None

    @property
    def counted(self) -> list[RunRecord]:
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
        values = [getattr(task, name) for run in self.counted for task in run.tasks]
        numbers = [value if of is None else getattr(value, of) for value in values if value is not None]
        if not numbers:
            return None
        return max(numbers) if of == "max" else metrics.mean_std(numbers)[0]

    def backbone_change(self, name: str, last: bool = False) -> list[float]:
        """What the diagnosis found under a name: each counted run's mean over tasks, or its last task's value."""
        found = []
        for run in self.counted:
            values = [getattr(task.backbone, name) for task in run.tasks if task.backbone]
            numbers = [value for value in values if value is not None]
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
            spent = [(task.seconds or {}).get(phase) for task in run.tasks]
            numbers = [value for value in spent if value is not None]
            if numbers:
                totals.append(math.fsum(numbers))
        return metrics.mean_std(totals)[0] if totals else None


def memory_by_phase(task: TaskRecord) -> dict[str, float]:
    """A task's peak memory in bytes: of every phase that has one, and the largest as `WHOLE`.

    Files of earlier versions have one number for a task: it stands alone, as `WHOLE`.
    """
    recorded = task.peak_memory_bytes
    if isinstance(recorded, dict):
        peaks = {phase: peak for phase, peak in recorded.items() if peak is not None}
        return {**peaks, WHOLE: max(peaks.values())} if peaks else {}
    return {} if recorded is None else {WHOLE: recorded}
