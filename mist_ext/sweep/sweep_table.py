"""The table of a sweep, and its JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mist_ext.report import columns, numbers
from mist_ext.report.columns import ACCURACY, Shown
from mist_ext.report.experiments import DIAGNOSIS
from mist_ext.report.full_precision import flat, named
from mist_ext.report.notes import changes, warnings
from mist_ext.report.numbers import plural
from mist_ext.report.sharing import Sharing
from mist_ext.report.table import DASH, Cell, Column, Note, Table, Tables
from mist_ext.results.metrics import METRICS
from mist_ext.sweep.grid import Grid
from mist_ext.sweep.outcomes import Outcome
from mist_ext.sweep.significance import LEAST
from mist_ext.system.names import shown

SCHEMA = 1
_NAMED = 10  # points that a note names
LEGEND = (
    f"{columns.LEGEND} Gain: A_last minus that of the tuner none with all else the same, paired over (n) seeds. "
    f"p: two-sided paired t-test of the gain, from {LEAST} seeds on, not corrected for the number of rows. "
    "changed: % of the score-selected tensors that a step changes."
)


@dataclass(frozen=True)
class SweepTable:
    """The outcomes of a sweep, with what is said below them.

    Attributes
    ----------
    grid : Grid
    outcomes : list of Outcome
    failures : dict of str to str
        Why points failed, by name.
    environment : dict
        Versions and device of a run.
    sharing : Sharing
        Of the points' experiments.
    missing : sequence of str
        The names of points that were not run, or not to their end.
    """

    grid: Grid
    outcomes: Sequence[Outcome]
    failures: dict[str, str]
    environment: dict[str, Any]
    sharing: Sharing
    missing: Sequence[str] = ()

    @cached_property
    def tables(self) -> Tables:
        """One table: what varies, the numbers of every outcome, and below it what is missing, went wrong or failed."""
        diagnosed = columns.diagnosed(self.outcomes)
        chosen = [
            *self._names(),
            *columns.accuracies(self.outcomes),
            _of_outcome(Column("p", ACCURACY), lambda one: numbers.p_value(one.p)),
            columns.share("changed %", "changed", ACCURACY, in_paper=True),
            *columns.backbone(self.outcomes),
        ]
        lines = [columns.line(chosen, one, f"experiment-{n}") for n, one in enumerate(self.outcomes, 1)]
        legend = f"{LEGEND} {columns.BACKBONE_LEGEND}" if diagnosed else LEGEND
        axes = dict.fromkeys(name for one in self.outcomes for name in one.axes)
        # What the grid says goes before what the results do: two folders of images may have one name.
        records = [{**axes, **flat(one, diagnosed), **one.axes, "p": one.p} for one in self.outcomes]
        return Tables([Table(self._title(), [each.column for each in chosen], lines)], self._notes(), legend, records)

    def json(self) -> str:
        """Return every number in full precision, by seed too; null for what was not measured."""
        grid = self.grid
        diagnosis = DIAGNOSIS if columns.diagnosed(self.outcomes) else ()
        content = {
            "schema": SCHEMA,
            "axes": grid.axes,
            "runs": len(grid.points),
            "experiments": grid.experiments,
            "tunings": grid.tunings,
            "tuned_experiments": grid.tuned_experiments,
            "test": "two-sided paired t-test over seeds on last_accuracy",
            "environment": self.environment,
            "rows": [_record(one, diagnosis) for one in self.outcomes],
            "failures": self.failures,
        }
        return json.dumps(content, indent=1) + "\n"

    def _names(self) -> list[Shown]:
        """Return the columns of the method and of the axes with several values; the tuner always."""
        values: dict[str, set[str]] = {}
        for one in self.outcomes:
            for name, value in one.axes.items():
                values.setdefault(name, set()).add(repr(value))
        known = ("data", "tuner", *self.grid.redundant)
        varied = [name for name in values if len(values[name]) > 1 and name not in known]
        data = ["data"] if len(values.get("data", ())) > 1 else []
        return [
            *(_axis(name) for name in data),
            _of_outcome(Column("method"), lambda one: shown(one.experiment.method)),
            *(_axis(name) for name in ("tuner", *varied)),
        ]

    def _title(self) -> str:
        options = self.grid.points[0].options
        data = ", ".join(dict.fromkeys(shown(one.axes["data"]) for one in self.outcomes))
        seeds = plural(len(self.grid.axes["seeds"]), "seed")
        return " · ".join(filter(None, (data, shown(options.backbone), seeds)))

    def _notes(self) -> list[Note]:
        grid = self.grid
        notes = [Note(shared_work(grid))]
        if len(grid.points) < len(grid.combinations):
            whole = plural(len(grid.combinations), "run")
            notes.append(Note(f"This is a part of a sweep of {whole}: mist report joins the folders of its parts."))
        notes += [Note(sentence)] if (sentence := self.sharing.sentence()) else []
        for one in self.outcomes:
            name = ", ".join(shown(value) for value in (*one.axes.values(), one.experiment.method))
            expected = {point.seed for point in grid.points if point.axes == one.axes}
            if missing := sorted(expected - {*one.experiment.seeds}):
                notes.append(Note(f"{name}: without seed {', '.join(map(str, missing))}", warning=True))
            notes += [*warnings(one.experiment, name), *changes(one.experiment, name, one.axes)]
        if self.missing:
            number = f"{len(self.missing)} of {plural(len(grid.points), 'run')}"
            notes.append(Note(f"not finished: {number}, {_first_names(self.missing)}", warning=True))
        return notes + [Note(f"failed: {name}: {shown(error, 500)}", True) for name, error in self.failures.items()]


def _first_names(names: Sequence[str]) -> str:
    """Return so many names as can be read, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more


def shared_work(grid: Grid) -> str:
    """Say how many runs a grid's experiments take, and why they are fewer."""
    runs, experiments = plural(len(grid.points), "run"), plural(grid.experiments, "experiment")
    fewer = f" instead of {grid.tuned_experiments}" if grid.tunings < grid.tuned_experiments else ""
    words = f"{experiments} of the grid from {runs}: {plural(grid.tunings, 'tuning')} of a backbone{fewer}"
    if len(grid.points) < grid.experiments:
        words += ": methods share a tuned backbone, and points share a run where they differ in nothing that it uses"
    return f"{words}."


def _of_outcome(column: Column, text: Callable[[Any], str]) -> Shown:
    return Shown(column, lambda one: Cell(text(one)))


def _axis(name: str) -> Shown:
    return _of_outcome(Column(name), lambda one: shown(one.axes.get(name, DASH)))


def _record(one: Outcome, diagnosis: Sequence[str]) -> dict[str, Any]:
    experiment = one.experiment
    by_seed = {name: experiment.by_seed(name) for name in METRICS}
    return {
        "axes": one.axes,
        "method": experiment.method,
        "seeds": experiment.seeds,
        **{name: named(experiment.metric(name)) for name in METRICS},
        "gain_over_none": named(one.gain),
        "p": one.p,
        "changed_fraction": experiment.fractions["changed"],
        **{name: named(experiment.backbone_change[name]) for name in diagnosis},
        "by_seed": by_seed | {name: found for name in DIAGNOSIS if (found := experiment.diagnosis(name))},
    }
