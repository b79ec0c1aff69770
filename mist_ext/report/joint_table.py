"""The table of a report: all experiments, those that are comparable beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report import columns, full_precision
from mist_ext.report.columns import Shown
from mist_ext.report.comparisons import Comparison, Group, groups
from mist_ext.report.notes import changed_in_words, notes
from mist_ext.report.numbers import plural
from mist_ext.report.table import Cell, Column, Table, Tables
from mist_ext.system.names import shown

LEGEND = (
    f"{columns.LEGEND} Gain: A_last minus that of the tuner none with the same method, paired over (n) seeds. "
    "selected: % of the entries that are chosen by score; kept: % of these in a step; "
    "changed: % of the score-selected tensors that a step changes; of all: of the whole backbone. "
    "Seconds are sums over tasks, averaged over seeds."
)
NAMES = [
    Shown(Column("method"), lambda one: Cell(shown(one.experiment.method))),
    Shown(Column("tuner"), lambda one: Cell(_tuner(one))),
]
_NAMED = 3  # options that a line names


def joint_table(comparisons: Sequence[Comparison]) -> Tables:
    """Return a table for each group of comparable experiments; a star marks what is incomplete.

    Lines lead to the anchors ``experiment-1``, ``experiment-2``, ... in the order of ``comparisons``.
    """
    anchors = {id(one): f"experiment-{number}" for number, one in enumerate(comparisons, 1)}
    tables = []
    for group, members in groups(comparisons).items():
        all_columns = [
            *NAMES,
            *columns.accuracies(members),
            *columns.backbone(members),
            *columns.shares(),
            *columns.seconds(),
            *columns.memory(members),
        ]
        lines = [columns.line(all_columns, one, anchors[id(one)]) for one in members]
        tables.append(Table(title(group, members), [each.column for each in all_columns], lines))
    diagnosed = columns.diagnosed(comparisons)
    legend = [LEGEND, *([columns.BACKBONE_LEGEND] if diagnosed else [])]
    legend += [columns.MEMORY_LEGEND] if columns.memory_recorded(comparisons) else []
    records = [
        {"label": one.label, "changed": changed_in_words(one.experiment), **full_precision.flat(one, diagnosed)}
        for one in comparisons
    ]
    return Tables(tables, notes(comparisons), " ".join(legend), records)


def _tuner(one: Comparison) -> str:
    """Return what an experiment is called, whether it is incomplete, and what of its preset was changed."""
    names = list(map(shown, one.experiment.changed))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    changed = f" (changed: {', '.join(names[:_NAMED])}{more})" if names else ""
    return f"{shown(one.label)}{' *' if one.experiment.gaps else ''}{changed}"


def title(group: Group, members: Sequence[Comparison]) -> str:
    """Return what all experiments of a group share."""
    counts = [len(one.experiment.seeds) for one in members]
    fewest, most = min(counts), max(counts)
    seeds = plural(most, "seed") if fewest == most else f"{fewest} to {plural(most, 'seed')}"
    limit = group.images_per_class
    images = f" · at most {plural(limit, 'image')} a class" if limit else ""
    return f"{shown(group.data)} · {shown(group.backbone)} · {plural(group.tasks, 'task')}{images} · {seeds}"
