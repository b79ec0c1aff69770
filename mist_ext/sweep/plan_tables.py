"""The tables of a plan: the runs of a sweep, what was timed for it, and what follows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mist_ext.report import numbers
from mist_ext.report.numbers import duration, plural
from mist_ext.report.table import DASH, Cell, Column, Line, Note, Table, Tables
from mist_ext.sweep.estimate import Estimate, Tasks, makespan
from mist_ext.sweep.grid import Grid
from mist_ext.sweep.point import Point
from mist_ext.sweep.stopwatch import Pace
from mist_ext.sweep.sweep_table import shared_work
from mist_ext.sweep.timing import MethodTime, TuningTime, method_kind, tuning_kind
from mist_ext.system import memory
from mist_ext.system.names import shown

LEGEND = (
    "Runs of one line differ in their seed alone. images: for training, of the largest task. memory: at the peak, in "
    "MiB. a step: of an epoch after its first, whose time counts by itself."
)


@dataclass(frozen=True)
class Planned:
    """A run that is to be done.

    Attributes
    ----------
    point : Point
    tasks : Tasks
    estimate : Estimate
    """

    point: Point
    tasks: Tasks
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """A sweep that is to be done.

    Attributes
    ----------
    grid : Grid
        All of its points, or those of a part.
    runs : sequence of Planned
        Those that are not finished.
    tunings, methods : mapping
        What was timed, by kind.
    jobs : int
        Runs at a time.
    device : torch.device
    where : str
        What was timed on, in words.
    remarks : sequence of str
        On data that is not there.
    """

    grid: Grid
    runs: Sequence[Planned]
    tunings: Mapping[Any, TuningTime]
    methods: Mapping[Any, MethodTime]
    jobs: int
    device: torch.device
    where: str
    remarks: Sequence[str] = ()

    @property
    def tables(self) -> Tables:
        """The runs, seeds together, and each kind of work that was timed; below them what follows."""
        return Tables([self._runs(), self._kinds()] if self.runs else [], self._notes(), LEGEND)

    def _runs(self) -> Table:
        names = dict.fromkeys(name for run in self.runs for name in run.point.axes)
        together: dict[str, list[Planned]] = {}
        for run in self.runs:
            together.setdefault(repr((run.point.axes, run.point.options.method)), []).append(run)
        rows = []
        for members in together.values():
            point, tasks = members[0].point, members[0].tasks
            spent = [run.estimate for run in members]
            row = {name: shown(point.axes.get(name, DASH)) for name in names if name not in self.grid.redundant}
            figures = {
                "runs": str(len(members)),
                "tasks": str(len(tasks.train)),
                "images": f"{max(tasks.train):,}",
                "a run": duration(spent[0].seconds),
                "all": duration(math.fsum(each.seconds for each in spent)),
                "memory": numbers.memory(self._on_device(members)),
            }
            rows.append(({**row, "methods": ", ".join(point.options.method)}, figures))
        return _table("Runs that are to be done", rows)

    def _kinds(self) -> Table:
        options = [run.point.options for run in self.runs]
        rows = []
        for kind, tuning in self.tunings.items():
            same = [each for each in options if tuning_kind(each) == kind]
            if tuning.paces:
                names = {"work": "tuner", "name": same[0].tuner[0], "backbone": same[0].backbone}
                names |= {"batch": str(same[0].batch_size), "precision": same[0].precision}
                rows.append((names, _figures(len(same), tuning.paces, None, tuning.memory)))
        for kind, method in self.methods.items():
            same = [each for each in options if any(method_kind(each, name) == kind for name in each.method)]
            trains = method.training[0]
            names = {"work": "method", "name": kind[0], "backbone": same[0].backbone}
            names |= {"batch": str(method.batch_size) if trains else DASH}
            names |= {"precision": "bf16-pure" if same[0].precision == "bf16-pure" else "fp32"}
            rows.append((names, _figures(len(same), trains, 1 / method.extraction[0], method.memory)))
        return _table("What was timed; runs of one kind tune or learn alike", rows)

    def _on_device(self, runs: Sequence[Planned]) -> int:
        """Return the most that one of some runs takes on the device; decoded images are in main memory."""
        kept = [0 if self.device.type == "cuda" else run.tasks.kept for run in runs]
        return max(run.estimate.memory + images for run, images in zip(runs, kept, strict=True))

    def _notes(self) -> list[Note]:
        grid = self.grid
        notes = [Note(shared_work(grid))]
        if done := len(grid.points) - len(self.runs):
            notes.append(Note(f"Finished: {done} of {plural(len(grid.points), 'run')}."))
        if not self.runs:
            return notes
        for name in ("data", "backbone"):
            used = Counter(getattr(run.point.options, name) for run in self.runs)
            listed = ", ".join(f"{shown(value)} ({plural(count, 'run')})" for value, count in used.items())
            notes.append(Note(f"{name}: {listed}"))
        notes += [Note(remark, warning=True) for remark in self.remarks]
        return [*notes, self._how(), *self._total()]

    def _how(self) -> Note:
        paces = [pace for each in self.tunings.values() for pace in each.paces.values()]
        paces += [pace for each in self.methods.values() for part in each.training for pace in part.values()]
        steps = sorted({pace.steps for pace in paces}) or [0]
        counted = plural(steps[-1], "timed step") if len(steps) == 1 else f"{steps[0]} to {steps[-1]} timed steps"
        return Note(
            f"These are estimates, from {counted} of each phase of each kind of work and one batch of "
            f"features, on noise, on this machine ({self.where}). Reading image files, predictions, diagnoses and "
            "saving are not counted, nor that runs at the same time slow each other down."
        )

    def _total(self) -> list[Note]:
        seconds = [run.estimate.seconds for run in self.runs]
        jobs = min(self.jobs, len(seconds))
        most = sum(sorted((self._on_device([run]) for run in self.runs), reverse=True)[:jobs])
        there = memory.available(self.device)
        needed, available = numbers.memory(most), numbers.memory(there)
        together, meanwhile = duration(math.fsum(seconds)), duration(makespan(seconds, jobs))
        notes = [
            Note(
                f"In all {plural(len(seconds), 'run')}, {together} one after the other; with {jobs} at a time about "
                f"{meanwhile}, and {needed} MiB of memory, of which {available} are available."
            )
        ]
        if self.device.type == "cuda" and (kept := max(run.tasks.kept for run in self.runs)):
            notes.append(Note(f"Besides, up to {numbers.memory(kept)} MiB of main memory a run for decoded images."))
        if most > there:
            fewer = f"give --jobs below {jobs}, or " if jobs > 1 else ""
            notes.append(Note(f"That is more memory than there is: {fewer}lower batch_size.", True))
        return notes


def _figures(runs: int, paces: Mapping[str, Pace], images: float | None, peak: int) -> dict[str, str]:
    last = list(paces.values())[-1] if paces else None
    return {
        "runs": str(runs),
        "steps timed": DASH if last is None else str(sum(pace.steps for pace in paces.values())),
        "a step": DASH if last is None else duration(last.step),
        "images a second": DASH if images is None else f"{images:.3g}",
        "memory": numbers.memory(peak),
    }


def _table(title: str, rows: Sequence[tuple[dict[str, str], dict[str, str]]]) -> Table:
    """Make a table of names and figures; a name that all rows share is in the title instead, unless it is the first."""
    first, *others = rows[0][0]
    shared = [name for name in others if len({names[name] for names, _ in rows}) == 1 and len(rows) > 1]
    kept = [first, *(name for name in others if name not in shared)]
    columns = [*map(Column, kept), *(Column(name, "Estimates") for name in rows[0][1])]
    lines = [Line([Cell(names[name]) for name in kept] + [*map(Cell, figures.values())]) for names, figures in rows]
    return Table("; ".join([title, *(f"{name} {rows[0][0][name]}" for name in shared)]), columns, lines)
