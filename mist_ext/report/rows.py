"""One row of numbers per cell, from which every table is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mist_ext.report.cells import WHOLE, Cell
from mist_ext.results import metrics
from mist_ext.system.costs import PHASES


class Group(NamedTuple):
    """What cells must share to stand in one table: numbers of another stream are not comparable."""

    data: str
    backbone: str
    tasks: int


class Spread(NamedTuple):
    """A mean and standard deviation over seeds."""

    mean: float
    std: float


@dataclass(frozen=True)
class Row:
    """The numbers of a cell.

    Attributes
    ----------
    cell : Cell
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

    cell: Cell
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
        return Group(self.cell.data, self.cell.backbone, self.cell.tasks)

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.cell.counted]


def make_rows(cells: Sequence[Cell]) -> list[Row]:
    """Make the rows of all cells, sorted by group, method and tuner, the tuner `none` first."""
    names = [(cell.data, cell.backbone, cell.tasks, cell.tuner, cell.method) for cell in cells]
    rows = []
    for cell, name in zip(cells, names, strict=True):
        twins = names.count(name) > 1
        rows.append(_row(cell, f"{cell.tuner} ({_output_folder(cell)})" if twins else cell.tuner, cells))
    return sorted(rows, key=lambda row: (row.group, row.cell.method, row.cell.tuner != "none", row.label))


def groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Split rows by group, in their order; a row without a finished task belongs to none."""
    split: dict[Group, list[Row]] = {}
    for row in rows:
        if row.cell.tasks:
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
        if other.cell.method == row.cell.method and getattr(other, metric) is not None
    ]
    own = getattr(row, metric)
    if own is None or len(means) < 2:
        return False
    return own.mean == (min if metric == "forgetting" else max)(means)


def _row(cell: Cell, label: str, cells: Sequence[Cell]) -> Row:
    runs = cell.counted
    seconds = {phase: cell.seconds(phase) for phase in PHASES}
    spent = [value for value in seconds.values() if value is not None]
    return Row(
        cell=cell,
        label=label,
        average_accuracy=_spread([metrics.average_accuracy(run.seen) for run in runs]),
        last_accuracy=_spread([metrics.last_accuracy(run.seen) for run in runs]),
        forgetting=_spread([metrics.forgetting(run.matrix) for run in runs]),
        gain=_gain(cell, cells),
        fractions={
            "selected": cell.fraction("selected_fraction"),
            "kept": cell.fraction("kept_fraction", "mean"),
            "changed": cell.fraction("changed_fraction", "mean"),
            "changed_max": cell.fraction("changed_fraction", "max"),
            "changed_all": cell.fraction("changed_fraction_all", "mean"),
            "changed_all_max": cell.fraction("changed_fraction_all", "max"),
        },
        backbone={
            "drift": _spread(cell.backbone_change("drift")),
            "letters": _spread(cell.backbone_change("letters", last=True)),
            "plasticity": _spread(cell.backbone_change("plasticity")),
        },
        seconds={**seconds, "total": sum(spent) if spent else None},
        memory={phase: cell.peak_memory(phase) for phase in (*PHASES, WHOLE)},
    )


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(*metrics.mean_std(values)) if values else None


def _gain(cell: Cell, cells: Sequence[Cell]) -> metrics.Gain | None:
    if cell.tuner == "none":
        return None
    frozen = [
        other
        for other in cells
        if other.tuner == "none"
        and (other.config.backbone, other.config.method) == (cell.config.backbone, cell.config.method)
        and other.data == cell.data
    ]
    # The same output folder first: its cells were run together.
    frozen.sort(key=lambda other: _output_folder(other) != _output_folder(cell))
    for other in frozen:
        orders = {run.seed: run.classes for run in other.counted}
        # A seed pairs only where both sides met the same classes in the same tasks.
        paired = {run.seed for run in cell.counted if orders.get(run.seed) == run.classes}
        baseline = {seed: value for seed, value in other.last_by_seed().items() if seed in paired}
        gain = metrics.paired_gain(cell.last_by_seed(), baseline)
        if gain is not None:
            return gain
    return None


def _output_folder(cell: Cell) -> str:
    return Path(cell.source).resolve().parent.parent.name
