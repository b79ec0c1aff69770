"""The table of costs, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mist_ext.cost.measuring import Bench, Cost
from mist_ext.cost.meter import UNTIMED
from mist_ext.cost.noise import CLASSES
from mist_ext.report import numbers
from mist_ext.report.table import DASH, Cell, Column, Line, Note, Table, Tables
from mist_ext.runs.experiment_results import environment
from mist_ext.system.names import shown

SCHEMA = 1
LEGEND = (
    "score: without an update; tune, train: forward, backward and update; learn: features and what the method learns "
    f"from them, of the first task's {CLASSES} classes; evaluate: features and prediction. selected: entries of the "
    "backbone that a task tunes, or that a method trains; kept: those whose gradient a step keeps; changed: those whose "
    "bits a step changed; in % of the tensors that are selected by score, of all that is trained where none is. "
    "GFLOPs: of one image, two a multiplication with an addition, as torch counts products, convolutions and "
    "attention; not what a factorisation takes. ms: median of the timed batches. Peak memory: the most in use during "
    "a batch beyond what the process held without the backbone."
)
_ENTRIES, _WORK = "Entries", "A batch"


@dataclass(frozen=True)
class CostTable:
    """What was measured, and with what.

    Attributes
    ----------
    bench : Bench
    costs : sequence of Cost
    """

    bench: Bench
    costs: Sequence[Cost]

    @cached_property
    def tables(self) -> Tables:
        """A table of tuners and one of methods, and below them why something was not measured."""
        options, size = self.bench.options, self.bench.size
        where = f"{shown(options.backbone)}, {size} x {size} pixels, {options.precision}, {self.bench.device}"
        made = []
        for kind, selected in (("tuner", "selected"), ("method", "trained")):
            lines = [_line(cost) for cost in self.costs if cost.kind == kind]
            if lines:
                made.append(Table(f"A batch of each {kind}: {where}", _columns(kind, selected), lines))
        notes = [Note(f"{cost.kind} {cost.name}: {cost.reason}", True) for cost in self.costs if cost.reason]
        return Tables(made, notes, LEGEND, [_record(cost) for cost in self.costs])

    def json(self) -> str:
        """Return everything in full precision: FLOPs of a batch, seconds, bytes, null for what was not measured."""
        options = self.bench.options
        content = {
            "schema": SCHEMA,
            "backbone": options.backbone,
            "image_size": self.bench.size,
            "precision": options.precision,
            "untimed_steps": UNTIMED,
            "timed_steps": self.bench.repeats,
            "environment": environment(self.bench.device),
            "rows": self.tables.records,
        }
        return json.dumps(content, indent=1) + "\n"


def _columns(kind: str, selected: str) -> list[Column]:
    return [
        Column(kind),
        Column("phase"),
        Column("images", _ENTRIES, in_paper=False),
        Column(selected, _ENTRIES),
        Column(f"{selected}\n%", _ENTRIES, in_paper=False),
        Column("kept\n%", _ENTRIES, in_paper=False),
        Column("changed", _ENTRIES),
        Column("changed\n%", _ENTRIES),
        Column("forward\nGFLOPs", _WORK),
        Column("backward\nGFLOPs", _WORK),
        Column("ms", _WORK),
        Column("peak memory\nMiB", _WORK),
    ]


def _line(cost: Cost) -> Line:
    steps = cost.steps
    cells = [cost.name, cost.phase or DASH, _count(cost.batch_size or None), _count(cost.selected)]
    cells += [numbers.percent(cost.selected_fraction), numbers.percent(cost.kept_fraction)]
    cells += [_count(cost.changed), numbers.percent(cost.changed_fraction)]
    if steps is None:
        cells += [DASH] * 4
    else:
        cells += [_giga(steps.forward_flops / cost.batch_size), _giga(steps.backward_flops / cost.batch_size)]
        cells += [numbers.seconds(1000 * steps.seconds), numbers.memory(steps.peak_memory_bytes)]
    return Line([Cell(text) for text in cells])


def _record(cost: Cost) -> dict[str, Any]:
    steps = cost.steps
    return {
        "kind": cost.kind,
        "name": cost.name,
        "phase": cost.phase or None,
        "batch_size": cost.batch_size or None,
        "selected": cost.selected,
        "changed": cost.changed,
        "selected_fraction": cost.selected_fraction,
        "kept_fraction": cost.kept_fraction,
        "changed_fraction": cost.changed_fraction,
        "forward_flops": None if steps is None else steps.forward_flops,
        "backward_flops": None if steps is None else steps.backward_flops,
        "seconds": None if steps is None else steps.seconds,
        "peak_memory_bytes": None if steps is None else steps.peak_memory_bytes,
        "reason": cost.reason or None,
    }


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _giga(flops: float) -> str:
    """Write billions to three digits, or none where there are none."""
    billions = flops / 1e9
    return "0" if not flops else f"{billions:#.3g}" if billions < 100 else f"{billions:,.0f}"
