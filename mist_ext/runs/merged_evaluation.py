"""What a merged delta is worth: the backbone that it makes, tested on the tasks of the run that it comes from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from mist_ext import backbones, methods, report
from mist_ext.config import Config
from mist_ext.config.option import read_options
from mist_ext.deltas import TaskDelta
from mist_ext.report.renderers.terminal import Terminal
from mist_ext.report.table import DASH, Cell, Column, Line, Table, Tables
from mist_ext.runs.context import RunContext, new_learner
from mist_ext.runs.evaluation import Evaluation
from mist_ext.runs.features import FeatureExtractor, Labelled, backbone_features
from mist_ext.seeding import draw_seed
from mist_ext.system.callbacks import Callbacks
from mist_ext.system.costs import Costs
from mist_ext.system.progress import Progress

LEGEND = (
    "Accuracy on each task's test images after the last task, in %. run: as the run has it, whose method learned each "
    "task from the backbone of that time. merged: the method learned all tasks from the merged backbone."
)


class MergedEvaluation:
    """Learns and tests all tasks of an experiment on another backbone.

    Parameters
    ----------
    context : RunContext
        Of the experiment alone.
    seed : int
    before : list of float
        The accuracy on each task that the run ended with, in percent; empty where it is not known.
    """

    def __init__(self, context: RunContext, seed: int, before: list[float]) -> None:
        self.context, self.seed, self.before = context, seed, before

    def accuracies(self, delta: TaskDelta) -> list[float]:
        """Return the accuracy on each task, in percent, of the run's base with a delta.

        Raises
        ------
        ValueError
            If the delta is not of that base.
        """
        context, options = self.context, self.context.options
        torch.manual_seed(draw_seed(self.seed, "model"))
        backbone = backbones.create(options.backbone, options.weights)
        if options.precision == "bf16-pure":
            backbone.to(torch.bfloat16)
        delta.apply_(backbone)
        return self._learned(backbone.to(context.device))

    def _learned(self, backbone: nn.Module) -> list[float]:
        context, options = self.context, self.context.options
        learner = new_learner(options, options.method[0], self.seed, backbone)
        stream = context.streams(self.seed if options.class_order_seed is None else options.class_order_seed)
        tests: list[Labelled] = []
        with Progress(context.console, len(stream)) as progress:
            network = partial(backbone_features, backbone)
            extractor = FeatureExtractor(network, context.device, False, Callbacks(progress.track))
            for task in stream.tasks:
                progress.begin(f"merged task {task.number + 1}/{len(stream)}")
                found = extractor.extract_task(stream.tasks[: task.number + 1], tests, Costs(context.device))
                learner.learn(*found.train)
                tests = found.tests
                progress.advance("")
        return Evaluation.of(learner, tests).per_task

    def table(self, delta: TaskDelta) -> Terminal:
        """Return the accuracies beside the run's, as something that `rich.console.Console.print` takes."""
        after = self.accuracies(delta)
        before: list[float | None] = [*self.before] or [None] * len(after)
        rows = [(str(number), *pair) for number, pair in enumerate(zip(before, after, strict=True), 1)]
        rows.append(("mean", sum(self.before) / len(after) if self.before else None, sum(after) / len(after)))
        columns = [Column("task"), Column("run", "accuracy"), Column("merged", "accuracy")]
        lines = [Line([Cell(name), *(Cell(DASH if x is None else f"{x:.2f}") for x in pair)]) for name, *pair in rows]
        return Terminal(Tables([Table("Accuracy of the merged backbone", columns, lines)], [], LEGEND))


def of_experiment(folder: str, seed: int | None, console: Console) -> MergedEvaluation:
    """Prepare the evaluation of merged deltas on an experiment's data, by its method.

    Parameters
    ----------
    folder : str
        Of the experiment: data-tuner-method in the run's.
    seed : int or None
        One of the experiment's; by default its first.
    console : Console

    Raises
    ------
    FileNotFoundError
        If it is no folder of an experiment, or its data is gone.
    ValueError
        If the method trains a network of its own, so that it cannot learn anew from another backbone's features; or the
        seed is none of the experiment's.
    """
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no folder of an experiment: there is no config.yaml in it")
    options = Config(**read_options(file, Config))
    options.check()
    (name,) = options.method
    if methods.named(name).trains:
        raise ValueError(f"method {name!r} trains a network of its own; evaluate with a run of simplecil or ranpac")
    if seed is not None and seed not in options.seeds:
        raise ValueError(f"seed is {seed}, but {folder} has the seeds {', '.join(map(str, options.seeds))}")
    used = options.seeds[0] if seed is None else seed
    context = RunContext.of(options, console)
    before: list[float] = []
    if (Path(folder) / "results.json").is_file():
        (experiment,) = report.read_experiments([folder])
        before = next((run.matrix[-1] for run in experiment.counted if run.seed == used), [])
    return MergedEvaluation(context, used, before if len(before) == len(context.streams(0)) else [])
