"""The protocol: for each seed run, for each of its tasks: tune, extract, learn, evaluate, record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType
from torch import Tensor

from mist_ext import config
from mist_ext.data.stream import Task
from mist_ext.data.task_images import TaskImages
from mist_ext.distributed import agreement, ranks
from mist_ext.results import metrics, warning_signs
from mist_ext.results.manifest import CHECKPOINTS
from mist_ext.results.record import BackboneRecord, TaskRecord
from mist_ext.results.scalars import Scalars
from mist_ext.runs import experiment_results, features
from mist_ext.runs.context import RunContext
from mist_ext.runs.evaluation import Evaluation
from mist_ext.runs.features import FeatureExtractor, TaskFeatures
from mist_ext.runs.image_check import ImageCheck
from mist_ext.runs.interruption import Checkpointer
from mist_ext.runs.run_state import restore, run_state
from mist_ext.runs.save_classifiers import save_classifiers
from mist_ext.runs.seed_run import SHARED, SeedRun
from mist_ext.runs.task_deltas import TaskDeltas
from mist_ext.system import shortage
from mist_ext.system.callbacks import Callbacks
from mist_ext.system.costs import SHARED_EXTRACTION, Costs
from mist_ext.system.names import say
from mist_ext.system.progress import Progress
from mist_ext.tuners.divergence import Diverged


class TaskLoop:
    """All seed runs of a run, one after the other.

    Parameters
    ----------
    context : RunContext
    out : Path
        The run's folder.
    """

    def __init__(self, context: RunContext, out: Path) -> None:
        self.context, self.options, self.out = context, context.options, out
        self.experiments = experiment_results.of_run(context, out)
        self.seed_runs = [(seed, tuner) for seed in self.options.seeds for tuner in self.options.tuner]
        self.number = 0  # of the seed run at hand
        self.seed_run: SeedRun
        self.deltas: TaskDeltas
        self.progress: Progress
        self.image_check = ImageCheck(context, out)
        every = config.seconds(self.options.checkpoint_every)
        self.checkpointer = Checkpointer(out / CHECKPOINTS, every, self._state, self._say)
        self.tensorboard = self.options.tensorboard and ranks.is_first()
        self._warned: set[str] = set()

    def run(self, saved: dict[str, Any] | None = None) -> None:
        """Run from the start, or from where a checkpoint was written."""
        tasks = len(self.context.streams(0))
        first, state = restore(saved, len(self.seed_runs), self.experiments, self.out)
        done = first * tasks + (state["task"] if state else 0)
        with Progress(self.context.console, len(self.seed_runs) * tasks, done) as self.progress, self.checkpointer:
            for number in range(first, len(self.seed_runs)):
                self._run_seed(number, state if number == first else None)
        for experiment in self.experiments.values():
            experiment.finish()

    def _run_seed(self, number: int, state: dict[str, Any] | None) -> None:
        """Run every task of one seed and tuner."""
        self.number, (seed, tuner) = number, self.seed_runs[number]
        with self._during("load the backbone"):
            seed_run = self.seed_run = SeedRun.begin(self.context, seed, tuner)
            folders = {method: self.experiments[tuner, method].folder for method in self.options.method}
            self.deltas = TaskDeltas.begin(self.context, seed_run, folders)
            if state is not None:
                seed_run.load_state_dict(self.deltas.go_on(state))
        folder = self.out / "tensorboard" / f"{tuner}-seed-{seed}"
        with Scalars(folder) if self.tensorboard else nullcontext() as curves:
            callbacks = Callbacks(self._tuning_progress, self.checkpointer.save_if_due)
            seed_run.tuner.callbacks = dataclasses.replace(callbacks, log=curves.add) if curves else callbacks
            for task in seed_run.stream.tasks[seed_run.task :]:
                self.progress.begin(f"seed {seed} {tuner} task {task.number + 1}/{len(seed_run.stream)}")
                seed_run.task = task.number
                try:
                    records = self._run_task(task)
                except Diverged as error:
                    raise self._final(error) from error
                with self._during("save results"):
                    self._record(task, records)
                if seed_run.task < len(seed_run.stream):
                    if self.deltas.written:
                        with self._during("save classifiers"):
                            save_classifiers(self.context, seed_run, folders, self.deltas.written, seed_run.task)
                    self.checkpointer.unchecked = True  # the methods have learned
                    self.checkpointer.save_if_due()
        with self._during("save classifiers"):
            save_classifiers(self.context, seed_run, folders, self.deltas.written)

    def _run_task(self, task: Task) -> dict[str, TaskRecord]:
        """Tune, extract, learn and evaluate; return one record for each method."""
        seed_run = self.seed_run
        with self._during("check images"):
            self.image_check.check(seed_run.stream, task.number + 1, self.progress, self.checkpointer.save)
        if seed_run.tuned is None:
            with self._during("tune", seed_run.failed_phase):
                seed_run.tuned = seed_run.tuner.tune(task.train)
        extracted = self._extract(task)
        change = self._measure_backbone(extracted)
        return {name: self._learn_and_evaluate(name, task, extracted, change) for name in seed_run.learners}

    def _extract(self, task: Task) -> dict[str, TaskFeatures]:
        """Extract own features of each method that trains (which it does here), and ``SHARED`` ones for all others."""
        seed_run, extracted = self.seed_run, {}
        moved = seed_run.tuner.moves_backbone
        training = {name: learner for name, learner in seed_run.learners.items() if learner.trains}
        if len(training) < len(seed_run.learners) or self.context.letters is not None:
            network = partial(features.backbone_features, seed_run.backbone)
            extracted[SHARED] = self._extract_from(network, SHARED, moved, Costs(self.context.device))
        if not training:
            return extracted
        with self.checkpointer.state_from_before():  # in the midst of its training a method has none to go on from
            for name, learner in training.items():
                costs = Costs(self.context.device)
                learner.callbacks = self._callbacks(costs)
                with self._during(f"train {name}"), costs.phase("learn"):
                    images = TaskImages.joined([t.train for t in seed_run.seen]) if learner.rehearses else task.train
                    changed = learner.train(images, task.classes)
                extracted[name] = self._extract_from(learner.features, name, changed or moved, costs)
        return extracted

    def _extract_from(self, network: Callable[[Tensor], Tensor], name: str, moved: bool, costs: Costs) -> TaskFeatures:
        """Extract a task's features; those of earlier test images are kept unless the network has moved."""
        seed_run = self.seed_run
        kept = [] if moved else seed_run.features.get(name, [])
        with self._during("extract"):
            extracted = self._extractor(network, self._callbacks(costs)).extract_task(seed_run.seen, kept, costs)
        seed_run.features[name] = extracted.tests
        return extracted

    def _extractor(self, network: Callable[[Tensor], Tensor], callbacks: Callbacks) -> FeatureExtractor:
        return FeatureExtractor(network, self.context.device, self.options.shard, callbacks)

    def _measure_backbone(self, extracted: dict[str, TaskFeatures]) -> BackboneRecord | UnsetType:
        """Measure what tuning did to the backbone, where that was asked for. Its time counts under no phase."""
        if self.context.letters is None:
            return UNSET
        network = partial(features.backbone_features, self.seed_run.backbone)
        extractor = self._extractor(network, Callbacks(self.progress.track))
        fitted, held_out = (extractor.extract(images) for images in self.context.letters)
        shared = extracted[SHARED]
        return self.seed_run.change.measure(shared.train, shared.tests, (fitted, held_out))

    def _learn_and_evaluate(
        self, name: str, task: Task, extracted: dict[str, TaskFeatures], change: BackboneRecord | UnsetType
    ) -> TaskRecord:
        """Let a method learn a task and predict the test images of all tasks so far."""
        seed_run, tuned = self.seed_run, self.seed_run.tuned
        assert tuned is not None
        learner, shared = seed_run.learners[name], name not in extracted
        own = extracted[SHARED if shared else name]
        costs = Costs(self.context.device) + tuned.costs + own.costs
        with self._during(f"learn {name}"), costs.phase("learn"):
            learner.learn(*own.train)
        with self._during(f"evaluate {name}"), costs.phase("evaluate"):
            found = Evaluation.of(learner, own.tests)
        losses = tuned.losses | learner.losses
        matrix = [*self.experiments[seed_run.tuner_name, name].matrix(seed_run.seed), found.per_task]
        seconds: dict[str, float | None] = {**costs.seconds}
        if shared:
            seconds[SHARED_EXTRACTION] = sum(own.costs.seconds.values())
        same_objective = self.options.score_objective == self.options.tune_objective
        signs = [
            *warning_signs.of_losses(losses, same_objective),
            *warning_signs.of_accuracy(name, found.accuracy, found.chance),
        ]
        return TaskRecord(
            classes=[seed_run.stream.class_order[position] for position in task.classes],
            accuracy_seen=metrics.accuracy_seen(matrix, [len(seen.test) for seen in seed_run.seen])[-1],
            top5_seen=found.top5,
            accuracy_per_task=found.per_task,
            accuracy_per_class=found.per_class([position for seen in seed_run.seen for position in seen.classes]),
            seconds=seconds,
            peak_memory_bytes={**costs.peak_memory_bytes},
            **tuned.fractions(),
            selection=tuned.selection,
            losses=losses,
            warnings=self._warn(signs),
            backbone=change,
        )

    def _record(self, task: Task, records: dict[str, TaskRecord]) -> None:
        """Write and show what came out of a task."""
        seed_run, findings = self.seed_run, []
        self.deltas.write(task)
        for name, record in records.items():
            experiment = self.experiments[seed_run.tuner_name, name]
            experiment.add_task(seed_run.seed, record)
            findings.append(f"{name} {record.accuracy_seen:.2f} %")
            if self.tensorboard:
                with Scalars(experiment.folder / "tensorboard" / f"seed-{seed_run.seed}") as scalars:
                    scalars.add_task(experiment.record.runs[-1].tasks[-1], task.number + 1)
        self.progress.advance(", ".join(findings))
        seed_run.task, seed_run.tuned = task.number + 1, None

    def _callbacks(self, costs: Costs) -> Callbacks:
        """Return callbacks whose checkpoints count under no phase."""
        return Callbacks(self.progress.track, partial(costs.apart, self.checkpointer.save_if_due))

    def _tuning_progress(self, iterable: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Show progress through a part of a tuner's work, in which its state has new parts."""
        self.checkpointer.unchecked = True
        return self.progress.track(iterable, description, total)

    def _state(self) -> dict[str, Any]:
        origin = self.context.source.fingerprint(), self.options.weight_gradients
        return run_state(*origin, self.number, self.deltas.in_checkpoint(self.seed_run.state_dict()), self.experiments)

    def _during(self, phase: str, failed: Callable[[], str | None] = lambda: None) -> AbstractContextManager[None]:
        """Return a context in which errors about what ran out name the phase, or ``failed``'s, and the progress."""

        def where() -> str:
            at = self.progress.at or failed() or ""
            known = at.partition(" ")[0].rstrip(",") in shortage.PHASES
            return ", ".join(filter(None, ["" if known else phase, at, self.progress.what]))

        after = f"; what was finished is saved, and mist run --resume {self.out} goes on from there"
        return shortage.explained(where, after)

    def _final(self, error: Diverged) -> Diverged:
        """Return an error that every rank has, with what can be done."""
        message = (
            f"{self.progress.what}: {error}. Nothing of that step was saved. mist run --resume {self.out} would go on "
            "from before it and end here again: start a new run"
        )
        return agreement.on_every_rank(Diverged(message))

    def _warn(self, found: list[tuple[warning_signs.Sign, str]]) -> list[warning_signs.Sign]:
        """Tell each finding once, though methods share the tuning; return the signs, for the record."""
        for message in (f"warning: {self.progress.what}: {words}" for _, words in found):
            if message not in self._warned:
                self._warned.add(message)
                self._say(message)
        return sorted({sign for sign, _ in found})

    def _say(self, message: str) -> None:
        say(self.context.console, message)
