"""What a run works on: device, data, streams and methods, found to fit together before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from rich.console import Console
from torch import nn

from mist_ext import backbones, data, methods, tuners
from mist_ext.config import Config
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of
from mist_ext.data.task_images import TaskImages
from mist_ext.distributed import ranks
from mist_ext.methods.method import Method
from mist_ext.methods.options import options_by_method
from mist_ext.results.scalars import require_tensorboard
from mist_ext.runs.run_folder import weights_file
from mist_ext.seeding import draw_seed
from mist_ext.system import memory
from mist_ext.system.cores import cores
from mist_ext.system.names import say
from mist_ext.tuners.divergence import require_finite
from mist_ext.tuners.weight_gradients import weight_gradients

MOST_WORKERS = 8


@dataclass
class RunContext:
    """What a run works on; made, and found to fit together, before any work."""

    options: Config
    console: Console
    device: torch.device
    source: Source
    streams: Callable[[int], Stream]  # by the class order's seed
    letters: tuple[TaskImages, TaskImages] | None = None  # what the diagnosis probes
    weights: str = ""  # a digest of the backbone's, where ranks compare theirs or they come from a file

    @classmethod
    def of(cls, options: Config, console: Console, name: str | None = None, source: Source | None = None) -> RunContext:
        """Load what the options name; ValueError or OSError where that is not possible.

        A ``name`` is that of the data set before its folder was moved; a ``source`` stands in for the data set.
        """
        if options.batch_size < ranks.size():
            raise ValueError(
                f"batch_size is {options.batch_size}, but {ranks.size()} processes share a batch out among them; give "
                "a larger --batch-size, or torchrun fewer processes"
            )
        device = used_device(options)
        if options.tensorboard:
            require_tensorboard()
        if source is None:
            source = data.load(options.data, options.data_root, options.test_fraction, name)
        for text in (*source.problems, *source.remarks):
            say(console, text)
        if options.evaluate_on == "validation":
            source = source.validation()
        if options.images_per_class is not None:
            source = source.with_fewer(options.images_per_class)
        backbone = backbones.create(options.backbone, options.weights)  # a wrong name or file is found before any work
        require_finite(backbone, options.weights)
        backbones.check_options(backbone, options.compile, options.checkpointing)
        for name in options.tuner:
            tuners.named(name).check(backbone, options)
        if options.shard:
            _check_shard(options, backbone)
        spec = backbones.input_spec(backbone)
        options = dataclasses.replace(
            options,
            normalize=_normalize(options, source, spec),
            weight_gradients=weight_gradients(options, device, backbone),
        )
        normalisation = (spec.mean, spec.std) if options.normalize == "model" else None
        if (spec.mean, spec.std) != (source.mean, source.std):  # else there is nothing to choose
            say(console, f"channels are normalised by --normalize {options.normalize}")
        workers = _workers(options, source)
        # So is a method's wrong option, and a backbone that it cannot be attached to.
        if options.checkpointing:
            backbones.set_checkpointing(backbone)  # which some methods refuse
        learners = {name: new_learner(options, name, options.seeds[0], backbone) for name in options.method}
        image_memory = round(options.image_memory * 1e9 / ranks.on_this_machine())
        augmented = options.augmentation == "auto"
        views = views_of(source, spec.size, normalisation, image_memory, workers, augmented)
        streams = partial(
            Stream,
            source,
            options.classes_per_task,
            views=views,
            first_task_classes=options.first_task_classes,
            class_order=options.class_order,
        )
        rows = max(len(task.train) for task in streams(0))  # a wrong number of classes is found before any work
        for name, learner in learners.items():
            needed = learner.memory(rows, int(backbone.num_features), len(source.class_names))  # type: ignore[arg-type]
            if device.type == "cpu":  # which processes of a machine share
                needed *= ranks.on_this_machine()
            memory.require(needed, device, f"method {name!r}", "lower its width or other sizes by --method-options")
        letters = None
        if options.diagnose:
            from mist_ext.data.letters import letters as letter_source

            (task,) = Stream(probed := letter_source(), None, 0, views_of(probed, spec.size, normalisation))
            letters = (task.train, task.test)
        weights = _digest(backbone) if ranks.size() > 1 or weights_file(options) else ""
        return cls(options, console, device, source, streams, letters, weights)


def _normalize(options: Config, source: Source, spec: backbones.InputSpec) -> Literal["published", "model"]:
    """Return what ``auto`` stands for."""
    if options.normalize != "auto":
        return options.normalize
    same = (spec.mean, spec.std) == (source.mean, source.std)  # as the embedded backbone's and the embedded data's
    own = any(source.mean) or any(value != 1 for value in source.std)  # as a plug-in may bring
    published = options.data in data.ON_DISK or (options.data in data.EMBEDDED and same) or own
    return "published" if published else "model"


def _digest(model: nn.Module) -> str:
    """Return a digest of every parameter and buffer, bit for bit."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_shard(options: Config, backbone: nn.Module) -> None:
    """Raise ValueError for what does not work on a backbone that is spread over processes."""
    try:
        backbones.blocks(backbone)
    except ValueError as error:
        raise ValueError(f"shard spreads a backbone block by block, but {error}; leave shard out") from error
    wrong = [f"tuner {name!r}" for name in options.tuner if not tuners.named(name).shardable]
    wrong += [f"method {name!r}" for name in options.method if methods.named(name).trains]
    if wrong:
        raise ValueError(
            f"shard is True, but {wrong[0]} trains whole tensors, of which each process has a part only; leave it out, "
            "or leave shard out"
        )


def method_options(options: Config, name: str, seed: int) -> dict[str, Any]:
    """Return the arguments of a method's class in a run."""
    chosen = dict(methods.named(name).recorded_options)
    if methods.named(name).seeded:
        chosen["seed"] = draw_seed(seed, "method", name)
    return chosen | options_by_method(options.method_options, options.method)[name]


def new_learner(options: Config, name: str, seed: int, backbone: nn.Module) -> Method:
    """Return a method that has learned nothing, attached to the backbone; ValueError where that cannot be."""
    learner = methods.create(name, **method_options(options, name, seed))
    learner.attach(backbone)
    return learner


def used_device(options: Config) -> torch.device:
    """Return the device that the options name, or choose; ValueError where it cannot be used."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.size() > 1 and name.startswith("cuda"):  # each process of a machine has its own
        if name != "cuda":
            raise ValueError(f"device is {name}, but {ranks.size()} processes need a GPU each; give --device cuda")
        there = torch.cuda.device_count()
        own = 0 if there == 1 else ranks.device_index()  # some launchers show each process a single one
        if own >= there:
            raise ValueError(
                f"process {own + 1} of this machine has no GPU of its own: there are {there}; start torchrun with "
                f"--nproc-per-node {there}, or give --device cpu"
            )
        name = f"cuda:{own}"
        torch.cuda.set_device(own)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {options.device!r} cannot be used: {error}") from error
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else torch refuses cuBLAS's products
    torch.use_deterministic_algorithms(options.deterministic)
    return device


def _workers(options: Config, source: Source) -> int:
    if options.workers is not None:
        return options.workers
    drawn = source.transform.random  # else an image is done in microseconds, and workers only cost
    return min(MOST_WORKERS, max(1, cores() // ranks.on_this_machine())) if drawn else 0
