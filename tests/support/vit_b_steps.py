"""The steps that the presets take on a ViT-B/16, each taken in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import nn

from mist_ext import backbones, methods, tuners
from mist_ext.config import Config, presets, unused
from mist_ext.config.tuning import SPARSE, TuningOptions
from mist_ext.cost.noise import SEED, NoiseImages
from mist_ext.runs.context import method_options
from mist_ext.system import peak_memory
from mist_ext.tuners.tuner import Tuned

BACKBONE, SIDE, CORES = "vit_base_patch16_224", 224, 2
# What changes numbers, but neither what is computed nor, but for the batch, the size of anything of size.
NUMBERS = {
    "batch_size",
    "classifier_lr",
    "epochs",
    "first_task_epochs",
    "freeze_rate",
    "full_lr",
    "keep",
    "later_lr_factor",
    "lr",
    "momentum",
    "projector_lr",
    "rate",
    "strike_factor",
    "weight_decay",
}

OF_PREDICTION = {"alpha", "classifier", "epochs", "seed", "width"}  # the same of a method's options, while it trains


class Step(NamedTuple):
    """What a preset does with a batch: by one of its tuners, or by its method.

    Attributes
    ----------
    kind, name : str
        ``tuner`` or ``method``, and which.
    settings : tuple
        Of a tuner, the options that it uses and that make a difference; of a method, its options.
    """

    kind: str
    name: str
    settings: tuple[tuple[str, Any], ...]


class Taken(NamedTuple):
    """What a step left: the most bytes that were resident, those kept for backward without weights, and its losses."""

    peak: int
    kept: int
    losses: list[float]


class Kept:
    """A context that notes which memory autograd keeps for backward; weights are in it, too."""

    def __init__(self) -> None:
        self.passes: list[dict[int, int]] = [{}]  # from a place to its bytes, for each pass forward
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def __enter__(self) -> Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()

    def bytes(self, *but: nn.Module) -> int:
        """Return the most that a pass kept, but for the parameters of some modules."""
        weights = {p.untyped_storage().data_ptr() for module in but for p in module.parameters()}
        return max(sum(size for place, size in each.items() if place not in weights) for each in self.passes)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self.passes[-1][storage.data_ptr()] = storage.nbytes()
        return tensor

    def _unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.passes[-1]:  # backward begins
            self.passes.append({})
        return tensor


def steps(preset: str) -> Iterator[tuple[Step, int]]:
    """Yield the steps that a preset takes, each with the rows that go through the backbone at once."""
    options = Config(**presets.preset(preset))
    tuning = {field.name for field in dataclasses.fields(TuningOptions)} - NUMBERS
    for tuner in options.tuner:
        if tuner != "none":
            chosen = {each: getattr(options, each) for each in sorted(tuning - set(unused.unused_by(tuner)))}
            yield Step("tuner", tuner, tuple(chosen.items())), options.batch_size * views(options.tune_objective)
    for method in options.method:
        own = method_options(options, method, SEED)
        settings = {name: value for name, value in own.items() if name not in OF_PREDICTION}
        learner = methods.create(method, **own)
        rows = learner.recipe.batch_size if methods.named(method).trains else options.batch_size
        yield Step("method", method, tuple(settings.items())), rows


def views(objective: str) -> int:
    """Return how many views of an image an objective of tuning takes."""
    return 1 if objective == "ce_cosine" else 2


def take(step: Step, images: int) -> Taken:
    """Take a step on a batch of so many images, on two cores and in a new process, as a run's first task begins.

    A tuner selects with the batch, where it selects, and tunes with it once; a method trains on it once, learns from
    an image of each class and predicts these. What Python and torch need counts, and so does the backbone.
    """
    context = multiprocessing.get_context("forkserver")  # not a copy of the tests' process and what that holds
    context.set_forkserver_preload(["timm", "mist_ext.runs.context"])  # once for all
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_take, step, images).result()


def _take(step: Step, images: int) -> Taken:
    torch.set_num_threads(CORES)
    torch.manual_seed(SEED)
    backbone = backbones.create(BACKBONE, "none")
    peak_memory.reset(None)
    noise = NoiseImages(SIDE, images, 1)
    with Kept() as kept:
        if step.kind == "method":
            learner = _learn(step, backbone, noise)
            losses = learner.losses if learner.trains else {}
            peak, weights = peak_memory.since_reset(None), [backbone, getattr(learner, "network", backbone)]
        else:
            tuned = _tune(step, backbone, noise)
            losses, weights = tuned.losses, [backbone]
            peaks = tuned.costs.peak_memory_bytes.values()  # each phase of a tuner counts anew
            peak = max(each for each in peaks if each is not None)
    return Taken(peak, kept.bytes(*weights), [loss for of_part in losses.values() for loss in of_part])


def _tune(step: Step, backbone: nn.Module, images: NoiseImages) -> Tuned:
    epochs = 2 if step.name in SPARSE else 1  # of which the first belongs to the selection
    options = Config(**dict(step.settings), epochs=epochs, batch_size=len(images))
    tuned = tuners.create(step.name, backbone, options, SEED).tune(images)
    assert tuned.changed[0] > 0
    return tuned


def _learn(step: Step, backbone: nn.Module, images: NoiseImages) -> Any:
    own = {"epochs": 1, "batch_size": len(images)}
    known = methods.options_of(step.name)
    learner: Any = methods.create(
        step.name, **dict(step.settings), **{name: value for name, value in own.items() if name in known}
    )
    learner.attach(backbone)
    learner.train(images, images.classes)
    firsts = [images.labels.tolist().index(label) for label in images.classes]
    pixels, labels = images.pixels[firsts], images.labels[firsts]
    learner.learn(learner.features(pixels), labels)
    assert len(learner.predict(learner.features(pixels))) == len(firsts)
    return learner
