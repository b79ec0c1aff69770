"""A run task by task beside the authors' own: accuracies, mean losses, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mist_ext.config import presets
from mist_ext.data import published_splits
from mist_ext.report import numbers
from mist_ext.report.experiments import Experiment
from mist_ext.report.parsing import ResultsError
from mist_ext.report.table import Cell, Column, Line, Note, Table, Tables
from mist_ext.results import authors_logs
from mist_ext.results.authors_logs import AuthorsRun
from mist_ext.results.metrics import Spread, mean_std
from mist_ext.results.published import TUNING
from mist_ext.system.names import shown

SEEN, NEW, LOSS = "All classes seen, %", "The task's own classes, %", "Loss, mean over epochs"
TOP5 = "Among the best five of all classes seen, %"
AGREES, WITHIN, DIFFERS = "agrees", "within the spread", "differs"


@dataclass(frozen=True)
class Beside:
    """A number of ours, over seeds, beside the log's, and how far apart they may be."""

    part: str
    ours: Spread
    theirs: float
    tolerance: float
    seeds: int

    @property
    def difference(self) -> float:
        """Ours less theirs."""
        return self.ours.mean - self.theirs

    @property
    def verdict(self) -> str:
        """Whether they agree; if not, whether the log's lies within two standard deviations of several seeds."""
        if abs(self.difference) <= self.tolerance:
            return AGREES
        return WITHIN if self.seeds > 1 and abs(self.difference) <= 2 * self.ours.std else DIFFERS


def compare_with_logs(
    experiments: Sequence[Experiment], tolerance: float, loss_tolerance: float
) -> tuple[Tables, bool]:
    """Return a table for each experiment that the authors published a log of, and whether all lines agree.

    Parameters
    ----------
    experiments : sequence of Experiment
        Those without MIST, or with a method that there is no log of, are left out.
    tolerance : float
        How many percentage points an accuracy may differ.
    loss_tolerance : float
        How much a task's loss may differ, the mean over its epochs.

    Raises
    ------
    ResultsError
        If an experiment is of another data set, split or class order, or none is left.
    """
    tables, notes, differing = [], [], 0
    compared = [one for one in experiments if one.tuner == "mist" and one.method in authors_logs.methods()]
    if not compared:
        found = ", ".join(one.name for one in experiments) or "no experiment"
        raise ResultsError(
            f"nothing to compare: there are logs of MIST before {' and '.join(authors_logs.methods())}, and here is "
            f"{found}"
        )
    for one in compared:
        if not one.counted:
            raise ResultsError(f"{one.name} has no finished task to compare yet")
        log = authors_logs.log_of(one.method)
        _require_same_stream(one)
        tasks = [beside(one, log, task, tolerance, loss_tolerance) for task in range(one.tasks)]
        differing += sum(any(each.verdict == DIFFERS for each in task) for task in tasks)
        tables.append(_table(one, tasks))
        if found := changed(one, log):
            notes.append(Note(f"{shown(one.name)}: changed: {found}", warning=True))
    notes.append(Note(f"log: {authors_logs.SOURCE}"))
    notes.append(Note(f"tasks that differ: {differing}", warning=True) if differing else Note("no task differs"))
    legend = (
        f"agrees: accuracies differ by at most {tolerance:g} points, the loss by {loss_tolerance:g}. within the "
        "spread: by more, but the log lies within two standard deviations of the seeds. The loss is the mean over the "
        "task's epochs, the scoring one included."
    )
    return Tables(tables, notes, legend), not differing


def beside(one: Experiment, log: AuthorsRun, task: int, tolerance: float, loss_tolerance: float) -> list[Beside]:
    """Return a task's accuracies, and its loss where it had as many epochs as the log's, beside the log's."""
    seeds, theirs = len(one.counted), log.loss_per_task_and_epoch[task]
    rows = [
        Beside(SEEN, one.seen_by_task()[task], log.accuracy_seen_per_task[task], tolerance, seeds),
        Beside(NEW, one.learnt_by_task()[task], log.accuracy_new_classes_per_task[task], tolerance, seeds),
        Beside(TOP5, one.top5_by_task()[task], log.top5_seen_per_task[task], tolerance, seeds),
    ]
    ours = [run.tasks[task].losses for run in one.counted]
    epochs = [[*losses.get("score", []), *losses.get("tune", [])] for losses in ours]
    if all(len(own) == len(theirs) for own in epochs):
        rows.append(Beside(LOSS, mean_std([fmean(own) for own in epochs]), fmean(theirs), loss_tolerance, seeds))
    return rows


def changed(one: Experiment, log: AuthorsRun) -> str:
    """Return which settings of a run are not those of the log's preset, with both values; empty if all are."""
    own, theirs = one.config.tuner, presets.preset(log.preset)
    found = [
        f"{name} {own.get(name)} (log: {theirs[name]})"
        for name in TUNING
        if name in theirs and own.get(name) != theirs[name]
    ]
    backbone = one.config.backbone["name"]
    return ", ".join([f"backbone {backbone} (log: {theirs['backbone']})"] * (backbone != theirs["backbone"]) + found)


def _require_same_stream(one: Experiment) -> None:
    theirs, data = authors_logs.protocol(), one.config.data
    (split,) = published_splits.SPLITS[theirs["data"]]
    tasks = len(authors_logs.log_of(one.method).accuracy_seen_per_task)
    for what, own, expected in (
        ("the data set", data.name, theirs["data"]),
        ("its split", data.split or "no published one", split.words),
        ("the number of tasks", data.tasks, tasks),
        ("classes_per_task", data.classes_per_task, theirs["classes_per_task"]),
        ("class_order_seed", one.config.class_order_seed, theirs["class_order_seed"]),
        ("what it was evaluated on", data.evaluated_on, "test"),
    ):
        if own != expected:
            raise ResultsError(
                f"{one.name} cannot be compared with the authors' log: {what} is {own}, there {expected}; run "
                f"--preset {authors_logs.log_of(one.method).preset}"
            )


def _table(one: Experiment, tasks: Sequence[Sequence[Beside]]) -> Table:
    parts = [each.part for each in min(tasks, key=len)]
    headings = ("ours", "log", "difference", "verdict")
    columns = [Column("method"), Column("task"), *(Column(heading, part) for part in parts for heading in headings)]
    lines = []
    for number, task in enumerate(tasks, 1):
        cells = [Cell(one.method), Cell(str(number))]
        for each in task[: len(parts)]:
            texts = (numbers.spread(each.ours, each.seeds), f"{each.theirs:.2f}", f"{each.difference:+.2f}")
            cells += [*map(Cell, texts), Cell(each.verdict, "down" if each.verdict == DIFFERS else "")]
        lines.append(Line(cells))
    return Table(f"{shown(one.name)} · {numbers.plural(len(one.counted), 'seed')}", columns, lines)
