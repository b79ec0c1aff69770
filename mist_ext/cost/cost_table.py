"""The table of costs, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mist_ext.cost.measuring import FORWARD_ONLY, PHASES, Bench, Cost
from mist_ext.cost.meter import UNTIMED, Steps
from mist_ext.report import numbers
from mist_ext.report.table import DASH, Cell, Column, Line, Note, Table, Tables
from mist_ext.runs.experiment_results import environment
from mist_ext.system.names import shown

SCHEMA = 1
LEGEND = (
    "score: a batch without an update; tune, train: one with it; learn: features of a batch, and what the method "
    "learns from them in the first task; evaluate: features and prediction. selected: entries of the backbone that a "
    "task tunes; kept: those whose gradient a step keeps; changed: those whose bits a step changed; in % of the "
    "tensors that are selected by score, of the backbone where none is. trained: entries that a method trains. "
    "forward, backward: GFLOPs of one image, two a multiplication with an addition, as torch counts products, "
    "convolutions and attention, but no factorisations. ms: median of the timed batches. MiB: the most memory in use "
    "during a batch, beyond what the process held before there was a backbone."
)
Phases = dict[str, Cost]  # of one tuner or method
_ENTRIES = "Entries"


class _Shown(NamedTuple):
    """A column and its cell for the phases of a tuner or method."""

    column: Column
    text: Callable[[Phases], str]


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
        for kind, shown_entries in (("tuner", _tuned), ("method", _trained)):
            rows = self._rows(kind)
            if rows:
                found = dict.fromkeys(phase for row in rows for phase in row if phase)
                phases = [*(phase for phase in PHASES if phase in found), *sorted(found.keys() - set(PHASES))]
                columns = [_Shown(Column(kind), lambda row: _first(row).name), *shown_entries()]
                columns += [each for phase in phases for each in _of_phase(phase)]
                lines = [Line([Cell(each.text(row)) for each in columns]) for row in rows]
                made.append(Table(f"A batch of each {kind}: {where}", [each.column for each in columns], lines))
        notes = [Note(f"{cost.kind} {cost.name}: {cost.reason}", True) for cost in self.costs if cost.reason]
        return Tables(made, notes, LEGEND, [_record(cost) for cost in self.costs])

    def _rows(self, kind: str) -> list[Phases]:
        rows: dict[str, Phases] = {}
        for cost in self.costs:
            if cost.kind == kind:
                rows.setdefault(cost.name, {})[cost.phase] = cost
        return list(rows.values())

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


def _first(row: Phases) -> Cost:
    """Return a row's first phase."""
    return next(iter(row.values()))


def _tuned() -> list[_Shown]:
    """Return what is selected, kept and changed of the backbone, which is told of the last phase."""
    return [
        _images(),
        _entries("selected", lambda cost: _count(cost.selected)),
        _entries("selected\n%", lambda cost: numbers.percent(cost.selected_fraction), in_paper=False),
        _entries("kept\n%", lambda cost: numbers.percent(cost.kept_fraction), in_paper=False),
        _entries("changed", lambda cost: _count(cost.changed), in_paper=False),
        _entries("changed\n%", lambda cost: numbers.percent(cost.changed_fraction)),
    ]


def _trained() -> list[_Shown]:
    """Return what a method trains, and what of it changes."""
    return [
        _images(),
        _entries("trained", lambda cost: _count(cost.selected)),
        _entries("changed", lambda cost: _count(cost.changed), in_paper=False),
    ]


def _images() -> _Shown:
    return _entries("images", lambda cost: _count(cost.batch_size or None), in_paper=False)


def _entries(heading: str, text: Callable[[Cost], str], in_paper: bool = True) -> _Shown:
    def cell(row: Phases) -> str:
        updating = next((cost for cost in row.values() if cost.changed is not None), _first(row))
        return text(updating)

    return _Shown(Column(heading, _ENTRIES, in_paper), cell)


def _of_phase(phase: str) -> list[_Shown]:
    def shown_as(heading: str, text: Callable[[Cost, Steps], str]) -> _Shown:
        def cell(row: Phases) -> str:
            cost = row.get(phase)
            return DASH if cost is None or cost.steps is None else text(cost, cost.steps)

        return _Shown(Column(f"{phase}\n{heading}", phase, phase != "learn"), cell)

    columns = [
        shown_as("forward", lambda cost, steps: _giga(steps.forward_flops / cost.batch_size)),
        shown_as("backward", lambda cost, steps: _giga(steps.backward_flops / cost.batch_size)),
        shown_as("ms", lambda _, steps: numbers.seconds(1000 * steps.seconds)),
        shown_as("MiB", lambda _, steps: numbers.memory(steps.peak_memory_bytes)),
    ]
    return [each for each in columns if phase not in FORWARD_ONLY or "backward" not in each.column.heading]


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
