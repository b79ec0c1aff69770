"""What came out of a sweep: one row for each place on the axes and method, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mist_ext.report import rows as report_rows
from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics
from mist_ext.sweep.grid import Point
from mist_ext.sweep.significance import paired_p

METRICS = ("average_accuracy", "last_accuracy", "forgetting")


@dataclass
class Row:
    """A method at a place on the axes.

    Attributes
    ----------
    axes : dict
        As `mist_ext.sweep.grid.Point` has them.
    method : str
    values : dict of str to dict of int to float
        Each of `METRICS` by seed, in percent.
    changed : dict of int to float
        The fraction of the score-selected tensors that a step changes, by seed; empty where it was not measured.
    classes : dict of int to tuple
        Each seed's classes of each task.
    experiments : dict of int to Experiment
        Each seed's own.
    gain : metrics.Gain or None
        Of the last accuracy over the tuner ``none`` at the same place, paired over seeds.
    p : float or None
        Of that gain, `paired_p`.
    """

    axes: dict[str, Any]
    method: str
    values: dict[str, dict[int, float]] = field(default_factory=lambda: {name: {} for name in METRICS})
    changed: dict[int, float] = field(default_factory=dict)
    classes: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    experiments: dict[int, Experiment] = field(default_factory=dict)
    gain: metrics.Gain | None = None
    p: float | None = None

    @property
    def seeds(self) -> list[int]:
        return list(self.classes)

    def spread(self, metric: str) -> tuple[float, float]:
        """Mean and standard deviation over seeds."""
        return metrics.mean_std(list(self.values[metric].values()))

    def changed_fraction(self) -> float | None:
        """The mean over seeds."""
        return metrics.mean_std(list(self.changed.values()))[0] if self.changed else None

    def reported(self) -> report_rows.Row:
        """The row of a report on all seeds together, which has what the diagnosis found."""
        return _reported(list(self.experiments.values()))

    def diagnosis(self) -> dict[str, dict[int, float]]:
        """What the diagnosis found, by name and seed; empty where it was not asked for."""
        found: dict[str, dict[int, float]] = {}
        for seed, experiment in self.experiments.items():
            for name, value in _reported([experiment]).backbone.items():
                if value is not None:
                    found.setdefault(name, {})[seed] = value.mean
        return found


def make_rows(results: Sequence[tuple[Point, Sequence[Experiment]]]) -> list[Row]:
    """Join the seeds of each place, and compare each place with the tuner ``none``.

    Parameters
    ----------
    results : sequence of (Point, experiments)
        Of the finished points.

    Returns
    -------
    list of Row
        By data set, then method, then in the order of the points.
    """
    rows: dict[Any, Row] = {}
    for point, experiments in results:
        for experiment in experiments:
            row = rows.setdefault(_key(point.axes, experiment.method), Row(point.axes, experiment.method))
            row.experiments[point.seed] = experiment
            for run in experiment.runs:
                row.classes[run.seed] = run.classes
                row.values["average_accuracy"][run.seed] = metrics.average_accuracy(run.seen)
                row.values["last_accuracy"][run.seed] = metrics.last_accuracy(run.seen)
                row.values["forgetting"][run.seed] = metrics.forgetting(run.matrix)
            if (changed := experiment.fraction("changed_fraction", "mean")) is not None:
                row.changed[point.seed] = changed
    for row in rows.values():
        if row.axes["tuner"] != "none":
            _compare(row, _frozen(row, list(rows.values())))
    data = list(dict.fromkeys(row.axes["data"] for row in rows.values()))
    methods = list(dict.fromkeys(row.method for row in rows.values()))
    return sorted(rows.values(), key=lambda row: (data.index(row.axes["data"]), methods.index(row.method)))


def _reported(experiments: Sequence[Experiment]) -> report_rows.Row:
    """The row of a report on experiments that differ in their seeds alone."""
    (row,) = report_rows.make_rows(
        [replace(experiments[0], runs=[run for experiment in experiments for run in experiment.runs])]
    )
    return row


def _key(axes: Mapping[str, Any], method: str) -> tuple[Any, ...]:
    return (*((name, repr(value)) for name, value in axes.items()), method)


def _frozen(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of the tuner ``none`` at the same place; it lacks the axes that concern tuning alone."""
    for other in rows:
        place = {name: row.axes[name] for name in other.axes if name != "tuner" and name in row.axes}
        if other.method == row.method and other.axes == {**place, "tuner": "none"}:
            return other
    return None


def _compare(row: Row, frozen: Row | None) -> None:
    if frozen is None:
        return
    # A seed pairs only where both sides met the same classes in the same tasks.
    last = frozen.values["last_accuracy"]
    baseline = {seed: last[seed] for seed in last if row.classes.get(seed) == frozen.classes[seed]}
    row.gain = metrics.paired_gain(row.values["last_accuracy"], baseline)
    row.p = paired_p(row.values["last_accuracy"], baseline)
