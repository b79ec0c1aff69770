"""Times a few steps of each kind of work that a sweep has, with its own tuners, backbones and methods."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from mist_ext.config import Config, TuningOptions
from mist_ext.config.option import kinds
from mist_ext.data.source import Source
from mist_ext.data.stream import Task
from mist_ext.data.task_images import TaskImages
from mist_ext.methods import options_of
from mist_ext.methods.method import Method
from mist_ext.runs.context import RunContext
from mist_ext.runs.features import BATCH_SIZE, FeatureExtractor
from mist_ext.runs.seed_run import SeedRun
from mist_ext.seeding import generator
from mist_ext.sweep.stopwatch import Pace, Stopwatch
from mist_ext.system import peak_memory
from mist_ext.system.callbacks import Callbacks

STEPS = 3  # of an epoch that are timed, after its first
TIMED_EPOCHS = 2  # of a tuner: the first may belong to the selection
_NO_STEP = 1e-12  # a learning rate at which noise cannot make training diverge

Show = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class TuningTime:
    """What tuning on a task takes.

    Attributes
    ----------
    paces : dict of str to Pace
        By phase; the last one goes on for as many epochs as there are.
    besides : float
        Seconds a task outside of all steps, such as for the selection.
    memory : int
        Bytes at the peak.
    """

    paces: dict[str, Pace] = field(default_factory=dict)
    besides: float = 0.0
    memory: int = 0

    @property
    def step(self) -> float:
        """Seconds of a step of the last phase."""
        return [pace.step for pace in self.paces.values()][-1] if self.paces else 0.0

    def seconds(self, epochs: int, steps: float) -> float:
        """Return the seconds of a task of so many epochs of so many steps."""
        spent = self.besides
        for number, pace in enumerate(self.paces.values(), 1):
            more = epochs - TIMED_EPOCHS if number == len(self.paces) else 0
            spent += max(0, pace.epochs + more) * pace.seconds(steps)
        return spent


@dataclass(frozen=True)
class MethodTime:
    """What a method takes.

    Attributes
    ----------
    training : tuple of dict
        The pace of each phase of training, in the first task and in later ones; empty where nothing is trained.
    epochs, batch_size : int
        Of its training.
    extraction : tuple of float
        Seconds an image for features, in the first and in the second task.
    learning : float
        Seconds a task to learn from features.
    memory : int
        Bytes at the peak.
    input_size : int
        Height and width of the backbone's images, in pixels.
    """

    training: tuple[dict[str, Pace], dict[str, Pace]]
    epochs: int
    batch_size: int
    extraction: tuple[float, float]
    learning: float
    memory: int
    input_size: int

    def training_seconds(self, task: int, images: int) -> float:
        """Return the seconds of training on a task, by its number from 0."""
        paces = self.training[min(task, 1)].values()
        return sum(self.epochs * pace.seconds(images / self.batch_size) for pace in paces)

    def extraction_seconds(self, task: int, images: int) -> float:
        """Return the seconds for the features of images in a task, by its number from 0."""
        first, second = self.extraction
        growth = second - first if second > 1.3 * first else 0.0  # a network that grows by a part with every task
        return images * (first + task * growth)


def tuning_kind(options: Config) -> tuple[Any, ...]:
    """Return what the time of tuning depends on: points that agree in it tune alike.

    Numbers with a fraction, such as rates, say what a step does, and hardly how long it takes.
    """
    own = [name for name, kind in kinds(TuningOptions).items() if kind is not float and "epochs" not in name]
    return (*options.tuner, options.backbone, options.weights, *(repr(getattr(options, name)) for name in own))


def method_kind(options: Config, method: str) -> tuple[Any, ...]:
    """Return what the time of a method depends on, besides the data."""
    return (
        method,
        *_own(options, method),
        options.backbone,
        options.weights,
        options.precision == "bf16-pure",
        options.compile,
    )


def time_tuning(options: Config, source: Source, show: Show) -> TuningTime:
    """Tune a backbone on a few images of two tasks, and time the second; nothing is timed where nothing is tuned."""
    _forget()
    run, device = _begun(options, "simplecil", source)
    if not run.tuner.moves_backbone:
        return TuningTime()
    peak_memory.reset(device)
    watch = Stopwatch(device, show)
    run.tuner.callbacks = watch.callbacks
    *warm_up, timed = run.stream.tasks[:2]
    for task in warm_up:
        run.tuner.tune(_few(task.train, options.batch_size))
    paces, besides = watch.time(lambda: run.tuner.tune(_few(timed.train, (STEPS + 1) * options.batch_size)))
    return TuningTime(paces, besides, peak_memory.since_reset(device))


def time_method(options: Config, method: str, source: Source, show: Show) -> MethodTime:
    """Have a method train on a few images of two tasks and learn from as many features as there will be."""
    _forget()
    run, device = _begun(dataclasses.replace(options, tuner=["none"]), method, source)
    learner = run.learners[method]
    recipe = getattr(learner, "recipe", None)
    epochs, batch_size = (recipe.epochs, recipe.batch_size) if recipe else (1, options.batch_size)
    if recipe:
        learner.recipe = dataclasses.replace(recipe, epochs=1, lr=_NO_STEP)  # type: ignore[attr-defined]
    peak_memory.reset(device)
    watch = Stopwatch(device, show)
    learner.callbacks = watch.callbacks
    training: list[dict[str, Pace]] = []
    extraction, learning = [], 0.0
    for task in run.stream.tasks[:2]:
        rows, labels = len(task.train), task.train.labels
        images = _few(task.train, (STEPS + 1) * batch_size)
        if not training:
            _warm_up(run.backbone, images, batch_size, device)
        training.append(watch.time(partial(learner.train, images, task.classes))[0])
        extraction.append(_extraction(learner, task, device, watch))
        features = _drawn(rows, learner, images, device)
        learning = watch.time(partial(learner.learn, features, labels))[1]
    return MethodTime(
        (training[0], training[-1]),
        epochs,
        batch_size,
        (extraction[0], extraction[-1]),
        learning,
        peak_memory.since_reset(device),
        run.stream.tasks[0].train.views.transform.size,
    )


def _begun(options: Config, method: str, source: Source) -> tuple[SeedRun, torch.device]:
    """Return the beginning of a run on the stand-in of its data set."""
    rates: dict[str, Any] = {name: _NO_STEP for name in kinds(TuningOptions) if name == "lr" or name.endswith("_lr")}
    timed = dataclasses.replace(
        options,
        **rates,
        method=[method],
        method_options=_own(options, method),
        epochs=TIMED_EPOCHS,
        first_task_epochs=None,
        diagnose=False,
        tensorboard=False,
    )
    quiet = Console(quiet=True)
    context = RunContext.of(timed, quiet, source=source)
    return SeedRun.begin(context, options.seeds[0], options.tuner[0]), context.device


def _own(options: Config, method: str) -> list[str]:
    """Return those options of methods that reach one of them."""

    def reaches(text: str) -> bool:
        target, _, option = text.partition("=")[0].rpartition(".")
        return target in ("", method) and option in options_of(method)

    return [text for text in options.method_options if reaches(text)]


def _forget() -> None:
    """Free what was timed before, so that it does not count."""
    gc.collect()
    peak_memory.give_back()


def _few(images: TaskImages, count: int) -> TaskImages:
    """Leave so many images."""
    images.leave_out(list(range(count, len(images))))
    return images


def _warm_up(backbone: nn.Module, images: TaskImages, count: int, device: torch.device) -> None:
    """Go through the backbone once, whose first pass takes longer; it is as it was after."""
    pixels = torch.stack([images[row][0] for row in range(min(count, len(images)))]).to(device)
    backbone(pixels.to(next(backbone.parameters()).dtype)).sum().backward()
    backbone.zero_grad()


def _extraction(learner: Method, task: Task, device: torch.device, watch: Stopwatch) -> float:
    """Return the seconds that an image takes; the first one, which warms up, does not count."""
    extractor = FeatureExtractor(learner.features, device, False, Callbacks())
    images = _few(task.test, BATCH_SIZE)
    learner.features(images[0][0][None].to(device))
    _, seconds = watch.time(partial(extractor.extract, images))
    return seconds / len(images)


def _drawn(rows: int, learner: Method, images: TaskImages, device: torch.device) -> Tensor:
    """Return features of so many images: those of one of them, and noise."""
    (one,) = learner.features(images[0][0][None].to(device))
    noise = torch.randn(rows, len(one), generator=generator("plan")).to(device)
    return one + 0.1 * one.std() * noise
