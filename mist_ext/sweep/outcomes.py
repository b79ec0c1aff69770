"""What came out of a sweep: one outcome for each method at each point of the axes, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from mist_ext.report.comparisons import Comparison, paired_baseline
from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics
from mist_ext.sweep.point import Point
from mist_ext.sweep.significance import paired_p


@dataclass(frozen=True)
class Outcome(Comparison):
    """A method at a point of the axes; its experiment has the runs of all seeds.

    Attributes
    ----------
    axes : dict
        As `mist_ext.sweep.point.Point` has them.
    p : float or None
        Of the gain over the tuner ``none`` at the same point, `paired_p`.
    """

    axes: dict[str, Any]
    p: float | None = None


def make_outcomes(
    results: Sequence[tuple[Point, Sequence[Experiment]]], redundant: Sequence[str] = ()
) -> list[Outcome]:
    """Join the seeds of each point of the axes, and compare it with the tuner ``none``.

    Parameters
    ----------
    results : sequence of (Point, experiments)
        Of the finished points.
    redundant : sequence of str
        Axes in which a point may differ from that of the tuner ``none`` with which it is compared, since they follow
        from its tuner: a preset of each.

    Returns
    -------
    list of Outcome
        By data set, then method, then in the order of the points.
    """
    joined: dict[Any, Outcome] = {}
    for point, experiments in results:
        for experiment in experiments:
            key = (*((name, repr(value)) for name, value in point.axes.items()), experiment.method)
            known = joined.get(key)
            if known is not None:
                experiment = structs.replace(known.experiment, runs=[*known.experiment.runs, *experiment.runs])
            joined[key] = Outcome(experiment, experiment.tuner, None, point.axes)
    found = list(joined.values())
    data = list(dict.fromkeys(one.axes["data"] for one in found))
    methods = list(dict.fromkeys(one.experiment.method for one in found))
    found = [_compared(one, _frozen(one, found, redundant)) for one in found]
    return sorted(found, key=lambda one: (data.index(one.axes["data"]), methods.index(one.experiment.method)))


def _frozen(one: Outcome, outcomes: Sequence[Outcome], redundant: Sequence[str]) -> Outcome | None:
    """Return the outcome of the tuner ``none`` at the same point; it lacks the axes that change nothing there."""

    def is_same(other: Outcome) -> bool:
        own = {name: value for name, value in other.axes.items() if name not in redundant}
        shared: Mapping[str, Any] = {name: one.axes[name] for name in own if name in one.axes}
        return other.experiment.method == one.experiment.method and own == {**shared, "tuner": "none"}

    # With precision on an axis there may be one for bf16-pure, and one for all else.
    return max(filter(is_same, outcomes), key=lambda other: len(other.axes), default=None)


def _compared(one: Outcome, frozen: Outcome | None) -> Outcome:
    if frozen is None or one.axes["tuner"] == "none":
        return one
    last, baseline = one.experiment.by_seed("last_accuracy"), paired_baseline(one.experiment, frozen.experiment)
    return replace(one, gain=metrics.paired_gain(last, baseline), p=paired_p(last, baseline))
