"""Experiments beside others: which are comparable, what each is called among them, and which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics


class Group(NamedTuple):
    """What experiments must share to stand in one table: numbers of another stream are not comparable."""

    data: str
    backbone: str
    tasks: int
    images_per_class: int = 0  # all


@dataclass(frozen=True)
class Comparison:
    """An experiment beside others.

    Attributes
    ----------
    experiment : Experiment
    label : str
        The tuner's name; where two experiments would have the same name, with the output folder's, of which so much is
        said as tells them apart.
    gain : metrics.Gain or None
        Of A_last over the tuner `none`, paired over seeds; None for that tuner, or where nothing pairs.
    """

    experiment: Experiment
    label: str
    gain: metrics.Gain | None

    @property
    def group(self) -> Group:
        one = self.experiment
        return Group(one.data, one.backbone, one.tasks, one.config.data.images_per_class or 0)


def compare(experiments: Sequence[Experiment]) -> list[Comparison]:
    """Compare all experiments; sorted by group, method and tuner, the tuner `none` first."""
    alike: dict[tuple[Any, ...], list[Path]] = {}
    for each in experiments:
        alike.setdefault(_name(each), []).append(output_folder(each))
    made = [Comparison(each, _label(each, alike[_name(each)]), _gain(each, experiments)) for each in experiments]
    return sorted(made, key=lambda one: (one.group, one.experiment.method, one.experiment.tuner != "none", one.label))


def groups(comparisons: Sequence[Comparison]) -> dict[Group, list[Comparison]]:
    """Split by group, in their order; an experiment without a finished task belongs to none."""
    split: dict[Group, list[Comparison]] = {}
    for one in comparisons:
        if one.experiment.tasks:
            split.setdefault(one.group, []).append(one)
    return split


def is_best(one: Comparison, others: Sequence[Comparison], metric: str) -> bool:
    """Return whether no other experiment of the same group and method has a better mean; False if there is none.

    Less ``forgetting`` is better; of the other `metrics.METRICS`, more is.
    """
    rivals = [each for each in others if (each.group, each.experiment.method) == (one.group, one.experiment.method)]
    means = [found.mean for each in rivals if (found := each.experiment.metric(metric))]
    own = one.experiment.metric(metric)
    if own is None or len(means) < 2:
        return False
    return own.mean == (min if metric == "forgetting" else max)(means)


def output_folder(experiment: Experiment) -> Path:
    """Return the folder of the run that an experiment belongs to."""
    return Path(experiment.source).resolve().parent.parent


def paired_baseline(experiment: Experiment, frozen: Experiment) -> dict[int, float]:
    """Return A_last of a frozen backbone by seed, where both met the same classes in the same tasks."""
    orders = {run.seed: run.classes for run in experiment.counted}
    last = frozen.by_seed("last_accuracy")
    return {run.seed: last[run.seed] for run in frozen.counted if orders.get(run.seed) == run.classes}


def _name(experiment: Experiment) -> tuple[Any, ...]:
    return experiment.data, experiment.backbone, experiment.tasks, experiment.tuner, experiment.method


def _label(experiment: Experiment, folders: Sequence[Path]) -> str:
    """Return what tells an experiment from others of its name, which are in these folders and its own."""
    if len(folders) < 2:
        return experiment.tuner
    own = output_folder(experiment).parts
    others = [folder.parts for folder in folders if folder.parts != own]
    count = next((count for count in range(1, len(own)) if all(one[-count:] != own[-count:] for one in others)), 1)
    return f"{experiment.tuner} ({'/'.join(own[-count:])})"


def _gain(experiment: Experiment, experiments: Sequence[Experiment]) -> metrics.Gain | None:
    if experiment.tuner == "none":
        return None
    frozen = [
        other
        for other in experiments
        if other.tuner == "none"
        and (other.config.backbone, other.config.method) == (experiment.config.backbone, experiment.config.method)
        and other.data == experiment.data
        and other.config.data.images_per_class == experiment.config.data.images_per_class
    ]
    # The same output folder first: its experiments were run together.
    frozen.sort(key=lambda other: output_folder(other) != output_folder(experiment))
    for other in frozen:
        gain = metrics.paired_gain(experiment.by_seed("last_accuracy"), paired_baseline(experiment, other))
        if gain is not None:
            return gain
    return None
