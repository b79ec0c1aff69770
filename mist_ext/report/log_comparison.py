"""A run task by task beside the authors' own: accuracies, mean losses, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mist_ext.config import Config, presets
from mist_ext.data import published_splits
from mist_ext.data.class_order import permuted
from mist_ext.report import numbers
from mist_ext.report.experiments import Experiment
from mist_ext.report.parsing import ResultsError
from mist_ext.report.table import Cell, Column, Line, Note, Table, Tables
from mist_ext.results import authors_logs
from mist_ext.results.authors_logs import AuthorsRun
from mist_ext.results.metrics import Spread, mean_std
from mist_ext.results.published import TUNING
from mist_ext.results.record import TaskRecord
from mist_ext.system.names import quoted, shown

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
    """Return a table for each experiment that the authors published a log of, and whether all are complete and agree.

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
        If an experiment is of another data set, split, stream or class order, or none is left.
    """
    tables, notes, agree = [], [], True
    compared = [one for one in experiments if one.tuner == "mist" and one.method in authors_logs.methods()]
    begun = [one for one in compared if one.counted]
    if not begun:
        found = ", ".join(one.name + " without a finished task" * (one in compared) for one in experiments)
        raise ResultsError(
            f"nothing to compare: there are logs of MIST before {' and '.join(authors_logs.methods())}, and here is "
            f"{found or 'no experiment'}"
        )
    for one in begun:
        log = authors_logs.log_of(one.method)
        _require_same_stream(one)
        tasks = [beside(one, log, task, tolerance, loss_tolerance) for task in range(one.tasks)]
        differing = sum(any(each.verdict == DIFFERS for each in task) for task in tasks)
        agree = agree and not differing
        tables.append(_table(one, tasks))
        notes.append(Note(f"{shown(one.name)}: {_in_words(differing, one.tasks)}", warning=bool(differing)))
        if LOSS not in tables[-1].parts:
            epochs = len(log.loss_per_task_and_epoch[0])
            text = f"{shown(one.name)}: no losses are compared: not every task has the log's {epochs} epochs"
            notes.append(Note(text, warning=True))
        if found := changed(one, log):
            notes.append(Note(f"{shown(one.name)}: changed: {found}", warning=True))
    if unfinished := [(one.name, gaps) for one in compared if (gaps := one.gaps)]:
        notes += [Note(f"{shown(name)}: incomplete, {'; '.join(gaps)}", warning=True) for name, gaps in unfinished]
        agree = False
    notes.append(Note(f"log: {authors_logs.SOURCE}"))
    legend = (
        f"agrees: accuracies differ by at most {tolerance:g} points, the loss by {loss_tolerance:g}. within the "
        "spread: by more, but the log lies within two standard deviations of the seeds. The loss is the mean over the "
        "task's epochs, the scoring one included."
    )
    return Tables(tables, notes, legend), agree


def beside(one: Experiment, log: AuthorsRun, task: int, tolerance: float, loss_tolerance: float) -> list[Beside]:
    """Return a task's accuracies, and its loss where all tasks had as many epochs as the log's, beside the log's."""
    seeds = len(one.counted)
    rows = [
        Beside(SEEN, one.seen_by_task()[task], log.accuracy_seen_per_task[task], tolerance, seeds),
        Beside(NEW, one.learnt_by_task()[task], log.accuracy_new_classes_per_task[task], tolerance, seeds),
        Beside(TOP5, one.top5_by_task()[task], log.top5_seen_per_task[task], tolerance, seeds),
    ]
    epochs = [[_losses(each) for each in run.tasks] for run in one.counted]
    expected = [len(losses) for losses in log.loss_per_task_and_epoch[: one.tasks]]
    if all([len(losses) for losses in run] == expected for run in epochs):
        own = mean_std([fmean(run[task]) for run in epochs])
        rows.append(Beside(LOSS, own, fmean(log.loss_per_task_and_epoch[task]), loss_tolerance, seeds))
    return rows


def changed(one: Experiment, log: AuthorsRun) -> str:
    """Return which settings of a run are not those of the log's preset, with both values; empty if all are."""
    theirs = Config(**presets.preset(log.preset))
    given = [text.removeprefix(f"{one.method}.").partition("=") for text in theirs.method_options]
    backbone = {"backbone": theirs.backbone, "weights": theirs.weights}
    images = {"normalize": "published", "augmentation": theirs.augmentation, "images_per_class": None}
    expected: dict[str, Any] = {name: getattr(theirs, name) for name in (*TUNING, "precision")} | backbone | images
    expected |= {f"{one.method}.{name}": value for name, _, value in given}
    config = one.config
    own = {**config.tuner, "backbone": config.backbone["name"], "weights": config.backbone.get("weights")}
    own |= {name: getattr(config.data, name) for name in images}
    own |= {f"{one.method}.{name}": str(value) for name, value in config.method.items() if name != "name"}
    names = dict.fromkeys((*expected, *(name for name in own if name.startswith(f"{one.method}."))))
    return ", ".join(
        f"{name} {quoted(own.get(name))} (log: {quoted(expected.get(name))})"
        for name in names
        if own.get(name) != expected.get(name)
    )


def _require_same_stream(one: Experiment) -> None:
    theirs, data = authors_logs.protocol(), one.config.data
    (split,) = published_splits.SPLITS[theirs["data"]]
    classes = len(data.class_names)
    order = permuted(classes, theirs["class_order_seed"])
    size = theirs["classes_per_task"]
    tasks = [tuple(order[start : start + size]) for start in range(0, classes, size)]
    for what, own, expected in (
        ("the data set", data.name, theirs["data"]),
        ("its split", data.split or "no published one", split.words),
        ("what it was evaluated on", data.evaluated_on, "test"),
        ("the number of tasks", data.tasks, len(tasks)),
    ):
        if own != expected:
            raise _other(one, f"{what} is {own}, there {expected}")
    for run in one.counted:
        for number, (ours, there) in enumerate(zip(run.classes, tasks, strict=False), 1):
            if ours != there:
                raise _other(
                    one,
                    f"task {number} of seed {run.seed} has the classes {_few(ours)}, there {_few(there)}, of "
                    f"classes_per_task {size} and class_order_seed {theirs['class_order_seed']}",
                )


def _other(one: Experiment, what: str) -> ResultsError:
    preset = authors_logs.log_of(one.method).preset
    return ResultsError(f"{one.name} cannot be compared with the authors' log: {what}; run --preset {preset}")


def _few(classes: Sequence[int]) -> str:
    return f"{', '.join(map(str, classes[:3]))}{', ...' if len(classes) > 3 else ''} ({len(classes)})"


def _losses(task: TaskRecord) -> list[float]:
    """Return the mean loss of each epoch, the scoring one first."""
    return [*task.losses.get("score", []), *task.losses.get("tune", [])]


def _in_words(differing: int, tasks: int) -> str:
    return f"{differing} of {numbers.plural(tasks, 'task')} differ" if differing else f"none of {tasks} tasks differs"


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
