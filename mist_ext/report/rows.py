"""One row of numbers per experiment, from which every table is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mist_ext.report.experiments import WHOLE, Experiment
from mist_ext.results import metrics
from mist_ext.system.costs import PHASES


class Group(NamedTuple):
    """What experiments must share to stand in one table: numbers of another stream are not comparable."""

    data: str
    backbone: str
    tasks: int


class Spread(NamedTuple):
    """A mean and standard deviation over seeds."""

    mean: float
    std: float


@dataclass(frozen=True)
class Row:
    """The numbers of an experiment.

    Attributes
    ----------
    experiment : Experiment
    label : str
        The tuner's name, with the output folder's where two rows would have the same name.
    average_accuracy, last_accuracy, forgetting : Spread or None
        Percent and percentage points; None without a finished task.
    gain : metrics.Gain or None
        Of A_last over the tuner `none`, paired over seeds; None for that tuner, or where nothing pairs.
    fractions : dict of str to float or None
        In 0..1, by name.
    backbone : dict of str to Spread or None
        What the diagnosis found: ``drift`` and ``plasticity`` as means over tasks, ``letters`` after the last one.
    seconds : dict of str to float or None
        By phase, summed over tasks, and their sum as ``total``.
    memory : dict of str to float or None
        Peak in bytes by phase, the largest over tasks and seeds, and the largest of all as ``whole``.
    """

    experiment: Experiment
    label: str
    average_accuracy: Spread | None
    last_accuracy: Spread | None
    forgetting: Spread | None
    gain: metrics.Gain | None
    fractions: dict[str, float | None]
    backbone: dict[str, Spread | None]
    seconds: dict[str, float | None]
    memory: dict[str, float | None]

    @property
    def group(self) -> Group:
        return Group(self.experiment.data, self.experiment.backbone, self.experiment.tasks)

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.experiment.counted]


def make_rows(experiments: Sequence[Experiment]) -> list[Row]:
    """Make the rows of all experiments, sorted by group, method and tuner, the tuner `none` first."""
    names = [
        (experiment.data, experiment.backbone, experiment.tasks, experiment.tuner, experiment.method)
        for experiment in experiments
    ]
    rows = []
    for experiment, name in zip(experiments, names, strict=True):
        twins = names.count(name) > 1
        rows.append(
            _row(
                experiment,
                f"{experiment.tuner} ({_output_folder(experiment)})" if twins else experiment.tuner,
                experiments,
            )
        )
    return sorted(rows, key=lambda row: (row.group, row.experiment.method, row.experiment.tuner != "none", row.label))


def groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Split rows by group, in their order; a row without a finished task belongs to none."""
    split: dict[Group, list[Row]] = {}
    for row in rows:
        if row.experiment.tasks:
            split.setdefault(row.group, []).append(row)
    return split


def is_best(row: Row, rows: Sequence[Row], metric: str) -> bool:
    """Whether no other row with the same method has a better mean; False where there is no other to beat.

    Parameters
    ----------
    row : Row
    rows : sequence of Row
        One group, which ``row`` belongs to.
    metric : str
        ``average_accuracy``, ``last_accuracy``, or ``forgetting``, of which less is better.
    """
    means = [
        getattr(other, metric).mean
        for other in rows
        if other.experiment.method == row.experiment.method and getattr(other, metric) is not None
    ]
    own = getattr(row, metric)
    if own is None or len(means) < 2:
        return False
    return own.mean == (min if metric == "forgetting" else max)(means)


def _row(experiment: Experiment, label: str, experiments: Sequence[Experiment]) -> Row:
    runs = experiment.counted
    seconds = {phase: experiment.seconds(phase) for phase in PHASES}
    spent = [value for value in seconds.values() if value is not None]
    return Row(
        experiment=experiment,
        label=label,
        average_accuracy=_spread([metrics.average_accuracy(run.seen) for run in runs]),
        last_accuracy=_spread([metrics.last_accuracy(run.seen) for run in runs]),
        forgetting=_spread([metrics.forgetting(run.matrix) for run in runs]),
        gain=_gain(experiment, experiments),
        fractions={
            "selected": experiment.fraction("selected_fraction"),
            "kept": experiment.fraction("kept_fraction", "mean"),
            "changed": experiment.fraction("changed_fraction", "mean"),
            "changed_max": experiment.fraction("changed_fraction", "max"),
            "changed_all": experiment.fraction("changed_fraction_all", "mean"),
            "changed_all_max": experiment.fraction("changed_fraction_all", "max"),
        },
        backbone={
            "drift": _spread(experiment.backbone_change("drift")),
            "letters": _spread(experiment.backbone_change("letters", last=True)),
            "plasticity": _spread(experiment.backbone_change("plasticity")),
        },
        seconds={**seconds, "total": sum(spent) if spent else None},
        memory={phase: experiment.peak_memory(phase) for phase in (*PHASES, WHOLE)},
    )


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(*metrics.mean_std(values)) if values else None


def _gain(experiment: Experiment, experiments: Sequence[Experiment]) -> metrics.Gain | None:
    if experiment.tuner == "none":
        return None
    frozen = [
        other
        for other in experiments
        if other.tuner == "none"
        and (other.config.backbone, other.config.method) == (experiment.config.backbone, experiment.config.method)
        and other.data == experiment.data
    ]
    # The same output folder first: its experiments were run together.
    frozen.sort(key=lambda other: _output_folder(other) != _output_folder(experiment))
    for other in frozen:
        orders = {run.seed: run.classes for run in other.counted}
        # A seed pairs only where both sides met the same classes in the same tasks.
        paired = {run.seed for run in experiment.counted if orders.get(run.seed) == run.classes}
        baseline = {seed: value for seed, value in other.last_by_seed().items() if seed in paired}
        gain = metrics.paired_gain(experiment.last_by_seed(), baseline)
        if gain is not None:
            return gain
    return None


def _output_folder(experiment: Experiment) -> str:
    return Path(experiment.source).resolve().parent.parent.name
