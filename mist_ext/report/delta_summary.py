"""What the tasks of a run changed: where in the model, how much, and how far they overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mist_ext.deltas import TaskDelta
from mist_ext.deltas.statistics import Overlap, TensorChange, norm, overlap, tensor_changes
from mist_ext.report.delta_files import first_seed
from mist_ext.report.experiments import Experiment
from mist_ext.report.selection_shares import Position, kinds_in_order, positions_by_name
from mist_ext.report.table import DASH, Cell, Column, Line, Table, Tables
from mist_ext.system.names import printable

LEGEND = (
    "changed: entries whose bits a task changed, and their share of the tensors that it changes. norm: of the changes, "
    "as one vector. Overlap: entries that both tasks change over entries that either changes (Jaccard). Agreement: of "
    "the entries that both change, those that both move the same way; chance is 50 %."
)


@dataclass(frozen=True)
class DeltaSummary:
    """Some deltas by the names that they are shown with."""

    deltas: Mapping[str, TaskDelta]

    @classmethod
    def of_experiment(cls, experiment: Experiment) -> DeltaSummary:
        """Return the deltas of an experiment's first seed that has any, named by their tasks' numbers."""
        return cls({str(task): TaskDelta.load(file) for task, file in first_seed(experiment).items()})

    @cached_property
    def changes(self) -> dict[str, list[TensorChange]]:
        """What each delta changes, by tensor."""
        return {name: tensor_changes(delta, f"the delta {name!r}") for name, delta in self.deltas.items()}

    @cached_property
    def overlap(self) -> Overlap:
        """What each two share."""
        return overlap(list(self.deltas.values()))

    @cached_property
    def positions(self) -> dict[str, Position]:
        """The layer and kind of every tensor that any of them changes."""
        return positions_by_name(list(dict.fromkeys(one.name for own in self.changes.values() for one in own)))

    @property
    def layers(self) -> list[str]:
        """In the order of the model."""
        return list(dict.fromkeys(layer for layer, _ in self.positions.values()))

    @property
    def kinds(self) -> list[str]:
        """In the order of the model."""
        return kinds_in_order(self.positions) if self.positions else []

    def shares(self) -> dict[Position, float]:
        """Return the changed entries over all entries of each layer and kind, in percent: the mean over the deltas."""
        entries: dict[Position, int] = {}
        sizes = {one.name: one.entries for own in self.changes.values() for one in own}
        for name, size in sizes.items():
            entries[self.positions[name]] = entries.get(self.positions[name], 0) + size
        changed = dict.fromkeys(entries, 0)
        for own in self.changes.values():
            for one in own:
                changed[self.positions[one.name]] += one.changed
        return {place: 100 * changed[place] / (size * len(self.deltas)) for place, size in entries.items() if size}

    def norms(self) -> dict[Position, float]:
        """Return the norm of the changes of each layer and kind: the mean over the deltas that have old values."""
        known = [own for own in self.changes.values() if norm(own) is not None]
        summed: dict[Position, float] = {}
        for own in known:
            by_place: dict[Position, list[TensorChange]] = {}
            for one in own:
                by_place.setdefault(self.positions[one.name], []).append(one)
            for place, parts in by_place.items():
                summed[place] = summed.get(place, 0.0) + (norm(parts) or 0.0) / len(known)
        return summed

    def tables(self) -> Tables:
        """Return what each delta changes, where, and what each two share."""
        made = [self._overview()]
        if self.positions:
            made.append(self._heat("Changed entries by layer and kind (%, mean)", self.shares(), ".2f"))
        if norms := self.norms():
            made.append(self._heat("Norm of the changes by layer and kind (mean)", norms, ".3g"))
        if len(self.deltas) > 1:
            shared = self.overlap
            made.append(self._matrix("Overlap of the changed entries (Jaccard)", shared.jaccard, ".3f", 1))
            made.append(self._matrix("Agreement of signs (%)", shared.agreement, ".1f", 100))
        return Tables(made, [], LEGEND, self._records())

    def _records(self) -> list[dict[str, Any]]:
        """Return every tensor of every delta."""
        return [
            {
                "delta": name,
                "tensor": one.name,
                "layer": self.positions[one.name][0],
                "kind": self.positions[one.name][1],
                "entries": one.entries,
                "changed": one.changed,
                "norm": norm([one]),
            }
            for name, own in self.changes.items()
            for one in own
        ]

    def _overview(self) -> Table:
        columns = [Column("delta"), *(Column(name, "whole") for name in ("tensors", "changed", "changed\n%", "norm"))]
        lines = []
        for name, own in self.changes.items():
            changed, size, length = sum(o.changed for o in own), sum(o.entries for o in own), norm(own)
            share = f"{100 * changed / size:.2f}" if size else DASH
            cells = [name, str(len(own)), f"{changed:,}", share, DASH if length is None else f"{length:.4g}"]
            lines.append(Line([Cell(text) for text in cells]))
        return Table("What each delta changes", columns, lines)

    def _heat(self, title: str, values: Mapping[Position, float], form: str) -> Table:
        columns = [Column("layer"), *(Column(printable(kind).replace(" ", "\n"), "kinds") for kind in self.kinds)]
        lines = []
        for layer in self.layers:
            found = [values.get((layer, kind)) for kind in self.kinds]
            lines.append(Line([Cell(layer), *(Cell(DASH if v is None else format(v, form)) for v in found)]))
        return Table(title, columns, lines)

    def _matrix(self, title: str, rows: Sequence[Sequence[float | None]], form: str, times: float) -> Table:
        columns = [Column("delta"), *(Column(printable(name), "with") for name in self.deltas)]
        lines = [
            Line([Cell(name), *(Cell(DASH if value is None else format(times * value, form)) for value in row)])
            for name, row in zip(self.deltas, rows, strict=True)
        ]
        return Table(title, columns, lines)
