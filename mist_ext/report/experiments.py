"""An experiment of a benchmark (data, backbone, tuner, method), and the numbers that are reported of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from mist_ext.results import metrics
from mist_ext.results.metrics import Spread
from mist_ext.results.record import BackboneRecord, Expected, ExperimentRecord, RunRecord, TaskRecord
from mist_ext.system.costs import PHASES
from mist_ext.system.names import shown

WHOLE = "whole"  # in the place of a phase: all of a task
DIAGNOSIS = BackboneRecord.__struct_fields__
_FRACTIONS = {  # the names that tables have: entry of a task's record, and which part of it
    "selected": ("selected_fraction", None),
    "kept": ("kept_fraction", "mean"),
    "changed": ("changed_fraction", "mean"),
    "changed_max": ("changed_fraction", "max"),
    "changed_all": ("changed_fraction_all", "mean"),
    "changed_all_max": ("changed_fraction_all", "max"),
}


class Experiment(ExperimentRecord, kw_only=True):
    """A record of results over its seeds, and what follows from it.

    Numbers are taken over the runs that finished the most tasks (`counted`); accuracies are in percent, fractions in
    0..1, memory in bytes. What was not measured is None.

    Attributes
    ----------
    source : str
        The file that it was read from.
    """

    source: str

    @property
    def data(self) -> str:
        return self.config.data.name

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
        """The title of its figures, cut where names are long."""
        return " · ".join(shown(name, 40) for name in (self.data, self.tuner, self.method))

    def class_name(self, label: int) -> str:
        """Return the name of a class by its number in the data set; the number if it has no name."""
        names = self.config.data.class_names
        return shown(names[label] if 0 <= label < len(names) else label, 24)

    @property
    def expected(self) -> Expected | None:
        """The published expectation, where the configuration carries one."""
        return self.config.expected or None

    @property
    def changed(self) -> dict[str, str]:
        """The options that are not those of the preset, each with both values in words."""
        return self.config.changed or {}

    @property
    def gaps(self) -> list[str]:
        """What an interrupted run lacks; empty where the experiment is complete."""
        expected = max(self.tasks, self.config.data.tasks)
        short = [run for run in self.runs if len(run.tasks) < expected]
        gaps = [f"seed {run.seed} has {len(run.tasks)} of {expected} tasks" for run in short]
        present = {run.seed for run in self.runs}
        if missing := [str(seed) for seed in self.config.seeds if seed not in present]:
            gaps.append(f"seed{'s' if len(missing) > 1 else ''} {', '.join(missing)} without a finished task")
        if not gaps and self.summary is UNSET:
            gaps.append("the run was interrupted before its summary")
        return gaps

    @property
    def tasks(self) -> int:
        """The number of tasks that the counted runs finished."""
        return max((len(run.tasks) for run in self.runs), default=0)

    @property
    def counted(self) -> list[RunRecord]:
        """The runs that means are taken over: those with the most finished tasks, if there is one."""
        return [run for run in self.runs if run.tasks and len(run.tasks) == self.tasks]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the counted runs."""
        return [run.seed for run in self.counted]

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return one of `metrics.METRICS` for each counted run."""
        return {run.seed: run.metrics[metric] for run in self.counted}

    def metric(self, name: str) -> Spread | None:
        """Return one of `metrics.METRICS` over seeds; None without a finished task."""
        return _spread(list(self.by_seed(name).values()))

    def seen_by_task(self) -> list[Spread]:
        """Return the accuracy on the classes seen after each task, over seeds."""
        return [metrics.mean_std(values) for values in zip(*(run.seen for run in self.counted), strict=True)]

    def top5_by_task(self) -> list[Spread]:
        """Return the same where an image counts if its class is among the best five."""
        tasks = zip(*(run.tasks for run in self.counted), strict=True)
        return [metrics.mean_std([task.top5_seen for task in of_all]) for of_all in tasks]

    def learnt_by_task(self) -> list[Spread]:
        """Return the accuracy on each task's own classes right after it, over seeds."""
        rows = zip(*(run.matrix for run in self.counted), strict=True)
        return [metrics.mean_std([row[-1] for row in of_task]) for of_task in rows]

    def mean_matrix(self) -> list[list[float]]:
        """Return the accuracy matrix, averaged over seeds."""
        rows = zip(*(run.matrix for run in self.counted), strict=True)
        return [[metrics.mean_std(values).mean for values in zip(*row, strict=True)] for row in rows]

    @property
    def fractions(self) -> dict[str, float | None]:
        """The mean of each fraction over tasks and seeds; for a maximum the largest."""
        return {name: self._fraction(*entry) for name, entry in _FRACTIONS.items()}

    def diagnosis(self, name: str) -> dict[int, float]:
        """Return one of `DIAGNOSIS` by seed: the mean over tasks, but of ``letters`` the value after the last one."""
        found = {}
        for run in self.counted:
            numbers = _known([getattr(task.backbone, name) for task in run.tasks if task.backbone])
            if numbers:
                found[run.seed] = numbers[-1] if name == "letters" else metrics.mean_std(numbers).mean
        return found

    @property
    def backbone_change(self) -> dict[str, Spread | None]:
        """Each `diagnosis` over seeds."""
        return {name: _spread(list(self.diagnosis(name).values())) for name in DIAGNOSIS}

    @property
    def seconds(self) -> dict[str, float | None]:
        """Seconds by phase, summed over tasks and averaged over seeds, and their sum as ``total``."""
        spent = {phase: self._seconds(phase) for phase in PHASES}
        known = _known(list(spent.values()))
        return {**spent, "total": sum(known) if known else None}

    @property
    def peak_memory(self) -> dict[str, float | None]:
        """The largest peak by phase over tasks and seeds, and the largest of all as ``whole``."""
        tasks = [memory_by_phase(task) for run in self.counted for task in run.tasks]
        return {name: max(_known([task.get(name) for task in tasks]), default=None) for name in (*PHASES, WHOLE)}

    def _fraction(self, entry: str, part: str | None) -> float | None:
        found = _known([getattr(task, entry) for run in self.counted for task in run.tasks])
        numbers = [value if part is None else getattr(value, part) for value in found]
        if not numbers:
            return None
        return max(numbers) if part == "max" else metrics.mean_std(numbers).mean

    def _seconds(self, phase: str) -> float | None:
        spent = [_known([task.seconds.get(phase) for task in run.tasks]) for run in self.counted]
        totals = [math.fsum(numbers) for numbers in spent if numbers]
        return metrics.mean_std(totals).mean if totals else None


def memory_by_phase(task: TaskRecord) -> dict[str, float]:
    """Return a task's peak memory in bytes: of every phase that has one, and the largest as `WHOLE`."""
    peaks = {phase: peak for phase, peak in task.peak_memory_bytes.items() if peak is not None}
    return {**peaks, WHOLE: max(peaks.values())} if peaks else {}


def _known(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _spread(values: Sequence[float]) -> Spread | None:
    return metrics.mean_std(values) if values else None
