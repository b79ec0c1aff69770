"""The task loop: every seed and tuner, task after task, for all methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

import mist_ext
from mist_ext import backbones, config, tuners
from mist_ext.config import Config
from mist_ext.data.inspection import unreadable
from mist_ext.data.source import BrokenImage
from mist_ext.data.stream import Batches, Task, TaskImages
from mist_ext.distributed import agreement, ranks
from mist_ext.distributed.batch_rows import gather_round_robin
from mist_ext.distributed.fsdp import shard
from mist_ext.distributed.shard_files import gather_tensors
from mist_ext.methods.options import options_by_method
from mist_ext.results import warning_signs
from mist_ext.results.manifest import CHECKPOINTS
from mist_ext.results.record import RunRecord
from mist_ext.results.scalars import Scalars
from mist_ext.runs import classifiers, experiment_results
from mist_ext.runs.context import RunContext, method_options, new_learner
from mist_ext.runs.experiment_results import ExperimentResults
from mist_ext.runs.interruption import Saver
from mist_ext.runs.seed_run import SHARED, SeedRun
from mist_ext.seeding import draw_seed
from mist_ext.system import shortage
from mist_ext.system.costs import SHARED_EXTRACTION, Costs
from mist_ext.system.names import printable, say, utf8
from mist_ext.system.progress import Progress
from mist_ext.tuners.divergence import Diverged
from mist_ext.tuners.tuner import never

EVALUATION_BATCH = 256  # images; only speed and memory depend on it


class Saved(msgspec.Struct, forbid_unknown_fields=True):
    """A run's state: of the seed run at hand, and the finished tasks of all experiments."""

    version: str
    data: str
    seed_run: int
    state: dict[str, Any]
    runs: list[tuple[tuple[str, str], list[RunRecord]]]


@dataclass
class Prepared:
    """What a method learns from and is tested on, and what that cost.

    Attributes
    ----------
    train : tuple of Tensor
        Features and labels of the task.
    tests : list of tuple
        Of every task so far.
    costs : Costs
        Of the phases learn and evaluate.
    """

    train: tuple[Tensor, Tensor]
    tests: list[tuple[Tensor, Tensor]]
    costs: Costs


class TaskLoop:
    """All seed runs of a run, one after the other."""

    def __init__(self, context: RunContext, out: Path) -> None:
        self.context = context
        self.options = context.options
        self.out = out
        env = experiment_results.environment(context.device)
        self.experiments = {
            (tuner, method): ExperimentResults(
                out, self._experiment(tuner, method), context.source.name, context.streams(0), env
            )
            for tuner in self.options.tuner
            for method in self.options.method
        }
        self.problems: dict[str, dict[int, str]] = {}  # by part and row: why an image cannot be decoded, or nothing
        self._warned: set[str] = set()
        self.seed_runs = [(seed, tuner) for seed in self.options.seeds for tuner in self.options.tuner]
        self.tensorboard = self.options.tensorboard and ranks.is_first()
        self.saver = Saver(out / CHECKPOINTS, config.seconds(self.options.checkpoint_every), self._say)

    def go(self, saved: dict[str, Any] | None = None) -> None:
        """Run from the start, or from where a checkpoint was written."""
        tasks = len(self.context.streams(0))
        first, state = 0, None
        if saved is not None:
            first, state = self._restored(saved)
        done = first * tasks + (state["task"] if state else 0)
        with Progress(self.context.console, len(self.seed_runs) * tasks, done) as self.progress, self.saver:
            for number in range(first, len(self.seed_runs)):
                self._seed_run(number, state if number == first else None)
        for experiment in self.experiments.values():
            experiment.finish()

    def _restored(self, saved: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The number of the seed run at hand, and its state; the experiments get their finished tasks back."""
        try:
            read = msgspec.convert(saved, Saved)
            if (
                read.seed_run not in range(len(self.seed_runs))
                or {key for key, _ in read.runs} != self.experiments.keys()
            ):
                raise ValueError(
                    f"it is of seed run {read.seed_run} of the experiments {[key for key, _ in read.runs]}"
                )
        except ValueError as error:
            raise ValueError(
                f"the checkpoint in {self.out} does not fit this run ({error}); start the run anew with --overwrite"
            ) from error
        for key, runs in read.runs:
            self.experiments[key].restore(runs)
        return read.seed_run, read.state

    def _experiment(self, tuner: str, method: str) -> Config:
        own = options_by_method(self.options.method_options, self.options.method)[method]
        given = [f"{name}={value!r}" for name, value in own.items()]
        return dataclasses.replace(self.options, tuner=[tuner], method=[method], method_options=given)

    def _say(self, message: str) -> None:
        say(self.context.console, message)

    def _seed_run(self, number: int, state: dict[str, Any] | None) -> None:
        seed, tuner_name = self.seed_runs[number]
        with self._during("load the backbone"):
            seed_run = self._new_seed_run(seed, tuner_name)
            if state is not None:
                seed_run.load_state_dict(state)
        folder = self.out / "tensorboard" / f"{tuner_name}-seed-{seed}"
        with Scalars(folder) if self.tensorboard else nullcontext() as losses:
            seed_run.tuner.watch = losses.add if losses else None
            for task in seed_run.stream.tasks[seed_run.task :]:
                self.progress.begin(f"seed {seed} {tuner_name} task {task.number + 1}/{len(seed_run.stream)}")
                seed_run.task = task.number
                try:
                    with self._during("check images"):
                        self._check_images(number, seed_run)
                    records = self._task(task, seed_run, number)
                except Diverged as error:
                    raise self._final(error) from error
                with self._during("save results"):
                    self._finish_task(task, seed_run, records)
                if seed_run.task < len(seed_run.stream):
                    self.saver.unproven = True  # the methods have learned
                    self._moment(number, seed_run)
        with self._during("save classifiers"):
            self._save_classifiers(seed_run)

    def _during(self, phase: str, broken: Callable[[], str | None] = lambda: None) -> AbstractContextManager[None]:
        """Within it, what runs out is told with the phase, or the one that ``broken`` names, and how far it was."""

        def where() -> str:
            at = self.progress.at or broken() or ""
            known = at.partition(" ")[0].rstrip(",") in shortage.PHASES
            return ", ".join(filter(None, ["" if known else phase, at, self.progress.what]))

        after = f"; what was finished is saved, and mist run --resume {self.out} goes on from there"
        return shortage.explained(where, after)

    def _final(self, error: Diverged) -> Diverged:
        """An error that every rank has, with what can be done."""
        message = (
            f"{self.progress.what}: {error}. Nothing of that step was saved. mist run --resume {self.out} would go on "
            "from before it and end here again: start a new run"
        )
        return agreement.on_every_rank(Diverged(message))

    def _finish_task(self, task: Task, seed_run: SeedRun, records: dict[str, dict[str, Any]]) -> None:
        """Write and show what came out of a task."""
        counts = [len(seen.test) for seen in seed_run.stream.tasks[: task.number + 1]]
        findings = []
        for name, record in records.items():
            experiment = self.experiments[seed_run.tuner_name, name]
            findings.append(f"{name} {experiment.add_task(seed_run.seed, record, counts):.2f} %")
            if self.tensorboard:
                with Scalars(experiment.folder / "tensorboard" / f"seed-{seed_run.seed}") as scalars:
                    scalars.add_task(experiment.record.runs[-1].tasks[-1], task.number + 1)
        self.progress.advance(", ".join(findings))
        seed_run.task, seed_run.tuned = task.number + 1, None

    def _new_seed_run(self, seed: int, tuner_name: str) -> SeedRun:
        options = self.options
        order_seed = seed if options.class_order_seed is None else options.class_order_seed
        torch.manual_seed(draw_seed(seed, "model"))
        backbone = backbones.create(options.backbone, options.weights)
        if options.shard and ranks.size() > 1:
            shard(backbone, backbones.blocks(backbone), self.context.device)
        else:
            backbone.to(self.context.device)
        tuner = tuners.create(tuner_name, backbone, options, seed)
        learners = {name: new_learner(options, name, seed, backbone) for name in options.method}
        for name, learner in learners.items():
            if tuner.moves_backbone and learner.stale:
                self._say(
                    f"tuner {tuner_name} moves the backbone between tasks, and {name} goes stale: {learner.stale}"
                )
        return SeedRun(seed, tuner_name, self.context.streams(order_seed), backbone, tuner, learners)

    def _track(self, iterable: Iterable[Any], phase: str, total: int) -> Iterable[Any]:
        """Show progress through a part of a tuner's work, in which its state has new parts."""
        self.saver.unproven = True
        return self.progress.track(iterable, phase, total)

    def _moment(self, number: int, seed_run: SeedRun) -> None:
        """The state is whole: it may be saved, and the run may stop."""
        self.saver.moment(lambda: self._state(number, seed_run))

    def _state(self, number: int, seed_run: SeedRun) -> dict[str, Any]:
        runs = [(key, msgspec.to_builtins(experiment.record.runs)) for key, experiment in self.experiments.items()]
        origin = {"version": mist_ext.__version__, "data": self.context.source.fingerprint()}
        return {**origin, "seed_run": number, "state": seed_run.state_dict(), "runs": runs}

    def _task(self, task: Task, seed_run: SeedRun, number: int) -> dict[str, dict[str, Any]]:
        """Tune, learn and evaluate one task; one record for each method."""
        if seed_run.tuned is None:
            with self._during("tune", lambda: _broken(seed_run)):
                seed_run.tuned = seed_run.tuner.tune(task.train, self._track, lambda: self._moment(number, seed_run))
        tuned = seed_run.tuned
        prepared = self._prepared(task, seed_run, number)
        seen = seed_run.stream.tasks[: task.number + 1]
        diagnosis = self._diagnosis(seed_run, prepared[SHARED]) if SHARED in prepared else {}
        records = {}
        for name, learner in seed_run.learners.items():
            own = prepared[name if name in prepared else SHARED]
            extraction = {} if name in prepared else {SHARED_EXTRACTION: sum(own.costs.seconds.values())}
            costs = Costs(self.context.device) + tuned.costs + own.costs
            with self._during(f"learn {name}"), costs.phase("learn"):
                learner.learn(*own.train)
            with self._during(f"evaluate {name}"), costs.phase("evaluate"):
                right = [learner.predict(x) == y for x, y in own.tests]
            classes = [position for earlier in seen for position in earlier.classes]
            labels = torch.cat([y for _, y in own.tests])
            chance = 100 * float(labels.bincount().max()) / len(labels)
            losses = tuned.losses | learner.losses
            records[name] = {
                "classes": [seed_run.stream.class_order[position] for position in task.classes],
                "accuracy_per_task": [_percent(hits) for hits in right],
                "accuracy_per_class": _by_class(torch.cat(right), labels, classes),
                "seconds": costs.seconds | extraction,
                "peak_memory_bytes": costs.peak_memory_bytes,
                **tuned.fractions(),
                "selection": tuned.selection,
                "losses": losses,
                "warnings": self._warn(
                    [
                        *warning_signs.of_losses(losses, self.options.score_objective == self.options.tune_objective),
                        *warning_signs.of_accuracy(name, _percent(torch.cat(right)), chance),
                    ]
                ),
                **diagnosis,
            }
        return records

    def _warn(self, found: Iterable[tuple[warning_signs.Sign, str]]) -> list[warning_signs.Sign]:
        """Tell each finding once, though methods share the tuning; the signs, for the record."""
        found = list(found)
        for message in (f"warning: {self.progress.what}: {words}" for _, words in found):
            if message not in self._warned:
                self._warned.add(message)
                self._say(message)
        return sorted({sign for sign, _ in found})

    def _diagnosis(self, seed_run: SeedRun, shared: Prepared) -> dict[str, Any]:
        """A record's entry on the backbone, where it was asked for. Its time counts under no phase."""
        if self.context.letters is None:
            return {}
        extract = partial(_features, seed_run.backbone)
        fitted, held_out = (self._extract(extract, images, never) for images in self.context.letters)
        return {"backbone": seed_run.change.measure(shared.train, shared.tests, (fitted, held_out))}

    def _prepared(self, task: Task, seed_run: SeedRun, number: int) -> dict[str, Prepared]:
        """Features for each method that trains (which it does here), and ``SHARED`` ones for all others."""
        made = {}
        own = {name: learner for name, learner in seed_run.learners.items() if learner.trains}
        if len(own) < len(seed_run.learners) or self.context.letters is not None:
            made[SHARED] = self._extracted(
                task,
                seed_run,
                SHARED,
                partial(_features, seed_run.backbone),
                seed_run.tuner.moves_backbone,
                lambda: self._moment(number, seed_run),
                Costs(self.context.device),
            )
        # A method that is in the midst of its training has no state to go on from: what is saved is that from before.
        whole = self.saver.made(lambda: self._state(number, seed_run)) if own else {}

        def pause() -> None:
            self.saver.moment(lambda: whole)

        def track(costs: Costs, iterable: Iterable[Any], phase: str, total: int) -> Iterator[Any]:
            for item in self.progress.track(iterable, phase, total):
                yield item
                costs.apart(pause)

        for name, learner in own.items():
            costs = Costs(self.context.device)
            with self._during(f"train {name}"), costs.phase("learn"):
                changed = learner.train(task.train, task.classes, partial(track, costs))
            moved = changed or seed_run.tuner.moves_backbone
            made[name] = self._extracted(task, seed_run, name, learner.features, moved, pause, costs)
        return made

    def _extracted(
        self,
        task: Task,
        seed_run: SeedRun,
        name: str,
        extract: Callable[[Tensor], Tensor],
        moved: bool,
        moment: Callable[[], None],
        costs: Costs,
    ) -> Prepared:
        """Features of the task's training images and of all tests so far; earlier ones are kept unless they moved."""
        moment = partial(costs.apart, moment)
        with self._during("extract"), costs.phase("learn"):
            train = self._extract(extract, task.train, moment)
        seen = seed_run.stream.tasks[: task.number + 1]
        kept = [] if moved else seed_run.features.get(name, [])
        with self._during("extract"), costs.phase("evaluate"):
            kept += [self._extract(extract, earlier.test, moment) for earlier in seen[len(kept) :]]
        seed_run.features[name] = kept
        return Prepared(train, kept, costs)

    @torch.no_grad()
    def _extract(
        self, extract: Callable[[Tensor], Tensor], images: TaskImages, moment: Callable[[], None]
    ) -> tuple[Tensor, Tensor]:
        """Features float32 ``[n, d]`` and labels int64 ``[n]`` of all images, without augmentation, on the device.

        The ranks take batches in turns, and every rank gets all features, in the order and with the bits that one
        process would have.
        """
        batches = Batches(images, EVALUATION_BATCH, None, device=self.context.device, split="round-robin")
        features = []
        for pixels, _ in self.progress.track(batches, "extract", len(batches)):
            features.append(extract(pixels))
            moment()
        if batches.idle:
            if self.options.shard:  # all ranks bring the backbone together at once
                extract(images[0][0][None].to(self.context.device))
            moment()
        own = torch.cat(features) if features else None
        sizes = [rows.count for rows in batches.rows]
        together = gather_round_robin(own, sizes, self.context.device)
        if broken := int((~together.isfinite().all(dim=1)).sum()):
            raise Diverged(
                f"{broken} of {len(together)} images of a part have features that are NaN or infinite; lower the "
                "learning rate if something was trained, else look at the weights"
            )
        return together, images.labels.to(self.context.device)

    def _check_images(self, number: int, seed_run: SeedRun) -> None:
        """Stop before a task whose images cannot all be decoded, with the state saved; or do without those."""
        for task in seed_run.stream.tasks[: seed_run.task + 1]:
            for part, images in (("training", task.train), ("test", task.test)):
                rows = images.indices.tolist()
                known = self.problems.setdefault(part, {})
                new = [row for row in rows if row not in known]
                track = partial(self.progress.track, phase=f"check {part} images", total=len(new))
                own = new[ranks.rank() :: ranks.size()]
                found = agreement.joined(dict(unreadable(images.views.images, own, track)))
                known |= dict.fromkeys(new, "") | found
                broken = [item for item, row in enumerate(rows) if known[row]]
                if not broken:
                    continue
                names = "\n".join(printable(known[rows[item]]) for item in broken)
                if not self.options.skip_broken:
                    self.saver.save(self.saver.made(lambda: self._state(number, seed_run)))
                    message = (
                        f"{len(broken)} {part} images of task {task.number + 1} cannot be decoded:\n{names}\n"
                        f"Go on with mist run --resume {self.out} once they are replaced, or with --skip-broken"
                    )
                    raise agreement.on_every_rank(BrokenImage(message))
                self._say(f"{len(broken)} {part} images of task {task.number + 1} are left out:\n{names}")
                images.leave_out(broken)
                for position in images.classes:
                    if not (images.labels == position).any():
                        name = self.context.source.class_names[seed_run.stream.class_order[position]]
                        message = f"class {name!r} has no {part} image left that can be decoded; replace some"
                        raise agreement.on_every_rank(BrokenImage(message))

    def _save_classifiers(self, seed_run: SeedRun) -> None:
        options = self.options
        wanted = {"none": False, "first": seed_run.seed == options.seeds[0], "all": True}
        if not wanted[options.save]:
            return
        as_created = not (
            seed_run.tuner.moves_backbone or options.weights == "none" or options.precision == "bf16-pure"
        )
        weights = None if as_created else gather_tensors(seed_run.backbone.state_dict())
        if not ranks.is_first():
            return
        source = self.context.source
        views = seed_run.stream.tasks[0].test.views
        for name, learner in seed_run.learners.items():
            description = {
                "backbone": options.backbone,
                "weights": options.weights,
                "method": name,
                "method_options": method_options(options, name, seed_run.seed),
                "class_names": [utf8(source.class_names[label]) for label in seed_run.stream.class_order],
                "transform": type(views.transform).__name__,
                "size": views.transform.size,
                "as_shown": views.images.as_shown,
                "mean": views.mean,
                "std": views.std,
            }
            folder = self.experiments[seed_run.tuner_name, name].folder
            classifiers.save_classifier(folder, seed_run.seed, weights, learner, description)


def _broken(seed_run: SeedRun) -> str | None:
    """The phase of tuning that an error ended."""
    tuned = getattr(seed_run.tuner, "tuned", None)
    return None if tuned is None else tuned.costs.broken


def _features(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """The backbone's own: float32 ``[n, d]``."""
    return backbone.eval()(pixels.to(next(backbone.parameters()).dtype)).float()


def _percent(hits: Tensor) -> float:
    return 100 * float(hits.double().mean())


def _by_class(hits: Tensor, labels: Tensor, classes: list[int]) -> list[float | None]:
    """The accuracy on each class's test images, in percent; None for a class without any."""
    parts = [hits[labels == position] for position in classes]
    return [_percent(part) if len(part) else None for part in parts]
