"""The columns of numbers that tables of reports and sweeps have, each with what it shows of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mist_ext.report import numbers
from mist_ext.report.comparisons import Comparison, is_best
from mist_ext.report.experiments import DIAGNOSIS, WHOLE
from mist_ext.report.table import Cell, Column, Line
from mist_ext.results.metrics import METRICS
from mist_ext.results.record import Expected
from mist_ext.system.costs import PHASES

ACCURACY, BACKBONE, MEMORY = "Accuracy, %", "The backbone", "Peak memory, MiB"

LEGEND = (
    "A_avg, A_last, and A_tt, which is the accuracy on a task's own classes right after it, in %; forgetting and gain "
    "in percentage points; mean ± std over seeds."
)
BACKBONE_LEGEND = (
    "drift: cosine between the features of earlier tasks' test images before and after tuning on a task, mean over "
    "tasks, 1 where nothing moves; letters: % of held-out Latin letters that a linear probe recognises after the last "
    "task; plasticity: % right among a task's own classes, by class means, mean over tasks."
)
MEMORY_LEGEND = (
    "Peak memory is the largest over tasks and seeds, of all that the process holds (on a GPU of all tensors), what "
    "earlier phases and other methods of the run left there included; whole: of any phase."
)


class Shown(NamedTuple):
    """A column and its cell for an experiment."""

    column: Column
    cell: Callable[[Comparison], Cell]


def line(columns: Sequence[Shown], one: Comparison, anchor: str = "") -> Line:
    """Return an experiment's line under columns."""
    return Line([each.cell(one) for each in columns], anchor)


def accuracies(comparisons: Sequence[Comparison]) -> list[Shown]:
    """Return the metrics and the gain; where any experiment has a published accuracy, it stands beside its own."""
    published = [one.experiment.expected for one in comparisons if one.experiment.expected]
    columns = []
    for metric, heading in METRICS.items():
        columns.append(_metric(metric, heading, comparisons))
        if any(getattr(expected, metric, None) is not None for expected in published):
            columns.append(_published(metric, heading))
    return [*columns, Shown(Column("gain over none", ACCURACY), _gain)]


def backbone(comparisons: Sequence[Comparison]) -> list[Shown]:
    """Return what tuning did to the backbone, if that is known of any experiment."""
    return [_diagnosis(name) for name in DIAGNOSIS] if diagnosed(comparisons) else []


def diagnosed(comparisons: Sequence[Comparison]) -> bool:
    """Return whether any experiment recorded what tuning did to the backbone."""
    return any(one.experiment.diagnosis(name) for one in comparisons for name in DIAGNOSIS)


def share(heading: str, name: str, part: str, in_paper: bool = False) -> Shown:
    """Return the column of one of `Experiment.fractions`."""
    return Shown(Column(heading, part, in_paper), lambda one: Cell(numbers.percent(one.experiment.fractions[name])))


def shares() -> list[Shown]:
    """Return the shares of entries that are selected, kept and changed."""
    part = "Shares of entries, %"
    return [
        share("selected\n%", "selected", part),
        share("kept\n%", "kept", part),
        share("changed\n%", "changed", part, in_paper=True),
        share("of all\n%", "changed_all", part),
    ]


def seconds() -> list[Shown]:
    """Return the seconds of each phase, and their sum."""
    return [_seconds(phase) for phase in (*PHASES, "total")]


def memory(comparisons: Sequence[Comparison]) -> list[Shown]:
    """Return the peak memory of each phase, and the largest, if any was measured."""
    return [_memory(phase) for phase in (*PHASES, WHOLE)] if memory_recorded(comparisons) else []


def memory_recorded(comparisons: Sequence[Comparison]) -> bool:
    """Return whether any experiment recorded its peak memory."""
    return any(one.experiment.peak_memory[WHOLE] is not None for one in comparisons)


def _metric(metric: str, heading: str, comparisons: Sequence[Comparison]) -> Shown:
    best = {id(one) for one in comparisons if is_best(one, comparisons, metric)}

    def cell(one: Comparison) -> Cell:
        text = numbers.spread(one.experiment.metric(metric), len(one.experiment.seeds))
        return Cell(text, "best" if id(one) in best else "")

    return Shown(Column(heading, ACCURACY), cell)


def _published(metric: str, heading: str) -> Shown:
    def cell(one: Comparison) -> Cell:
        return Cell(numbers.accuracy(getattr(one.experiment.expected or Expected(source=""), metric)))

    return Shown(Column(f"{heading}\npublished", ACCURACY), cell)


def _gain(one: Comparison) -> Cell:
    mean = one.gain.mean if one.gain else 0.0
    return Cell(numbers.gain(one.gain), "up" if mean > 0 else "down" if mean < 0 else "")


def _diagnosis(name: str) -> Shown:
    def cell(one: Comparison) -> Cell:
        digits = 4 if name == "drift" else 2
        return Cell(numbers.spread(one.experiment.backbone_change[name], len(one.experiment.seeds), digits))

    return Shown(Column(name, BACKBONE, in_paper=False), cell)


def _seconds(phase: str) -> Shown:
    column = Column(f"{phase}\ns", "Time, s", in_paper=False)
    return Shown(column, lambda one: Cell(numbers.seconds(one.experiment.seconds[phase])))


def _memory(phase: str) -> Shown:
    column = Column(f"{phase}\nMiB", MEMORY, in_paper=False)
    return Shown(column, lambda one: Cell(numbers.memory(one.experiment.peak_memory[phase])))
