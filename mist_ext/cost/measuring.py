"""The cost of a batch for a tuner and for a method: their own code, on a task of noise."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from mist_ext import backbones, methods, tuners
from mist_ext.backbones.embedded import SIDE
from mist_ext.config import Config
from mist_ext.config.tuning import SPARSE, TRAINING
from mist_ext.cost.first_step import FirstStep
from mist_ext.cost.meter import UNTIMED, Meter, Steps
from mist_ext.cost.noise import SEED, NoiseImages
from mist_ext.runs.context import method_options
from mist_ext.seeding import draw_seed
from mist_ext.system import memory, shortage
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners.full import Full
from mist_ext.tuners.tuner import Tuned, Tuner

FORWARD_ONLY = ("learn", "evaluate")  # in which nothing goes backward
PHASES = ("score", "tune", "train", *FORWARD_ONLY)
Kind = Literal["tuner", "method"]
Display = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass
class Cost:
    """What a phase of a tuner or method takes; None for what it does not have, or what is not known.

    Attributes
    ----------
    kind, name, phase : str
        The phase is empty where there is none.
    batch_size : int
    selected : int or None
        A tuner's selected entries of the backbone; a method's trained entries.
    changed : int or None
        Entries of the backbone, or of what a method trains, whose bits one step changed.
    selected_fraction, kept_fraction, changed_fraction : float or None
        As in a run's records: of the tensors that are selected by score, of all of the backbone where none is. Of what
        a method trains, the share that changed.
    steps : Steps or None
    reason : str
        Why nothing was measured.
    """

    kind: Kind
    name: str
    phase: str = ""
    batch_size: int = 0
    selected: int | None = None
    changed: int | None = None
    selected_fraction: float | None = None
    kept_fraction: float | None = None
    changed_fraction: float | None = None
    steps: Steps | None = None
    reason: str = ""


@dataclass(frozen=True)
class Bench:
    """What everything is measured with.

    Attributes
    ----------
    options : Config
    device : torch.device
    size : int
        Height and width of the images, in pixels.
    repeats : int
        Timed steps.
    """

    options: Config
    device: torch.device
    size: int
    repeats: int

    def costs(self, kind: Kind, name: str, display: Display) -> list[Cost]:
        """Measure a tuner or method, phase by phase; one that cannot work is told by its reason."""
        measure = self._of_tuner if kind == "tuner" else self._of_method
        meter = Meter(self.device, display)
        try:
            with shortage.explained(lambda: next(reversed(meter.phases), "")):
                return measure(name, meter)
        except (ValueError, MemoryError, OSError) as error:
            return [Cost(kind, name, reason=str(error))]
        except RuntimeError as error:  # which stops no other
            return [Cost(kind, name, reason=f"{type(error).__name__}: {str(error).splitlines()[0]}")]
        finally:
            meter.close()

    def warm_up(self) -> None:
        """Load libraries, and what torch makes when it is first used, so that it is no row's memory."""
        for name in self.options.tuner:
            if extra := tuners.TUNERS.extras.get(name):
                importlib.import_module(extra)
        small = Config(backbone="vit_nano", weights="none", batch_size=2)
        Bench(small, self.device, SIDE, 1).costs("tuner", "full", lambda iterable, *_: iterable)

    def backbone(self) -> nn.Module:
        """Make the backbone anew, as it was."""
        torch.manual_seed(draw_seed(SEED, "model"))
        return backbones.create(self.options.backbone, self.options.weights).to(self.device)

    def images(self, batch_size: int) -> NoiseImages:
        """Return a task of so many batches as are measured."""
        return NoiseImages(self.size, batch_size, UNTIMED + self.repeats)

    def _of_tuner(self, name: str, meter: Meter) -> list[Cost]:
        # The first epoch of those that select belongs to the selection; a plug-in may be one of them.
        epochs = 1 if name in TRAINING and name not in SPARSE else 2
        options = dataclasses.replace(self.options, epochs=epochs)
        tuner = tuners.create(name, self.backbone(), options, SEED)
        tuner.callbacks = Callbacks(meter.track)
        tuned = tuner.tune(self.images(options.batch_size))
        timed = {phase: steps for phase, steps in meter.phases.items() if steps.times}
        costs = [Cost("tuner", name, phase, options.batch_size, steps=steps) for phase, steps in timed.items()]
        if not costs:
            return [Cost("tuner", name)]
        return [*costs[:-1], dataclasses.replace(costs[-1], **_entries(tuner, tuned))]

    def _of_method(self, name: str, meter: Meter) -> list[Cost]:
        backbone = self.backbone()
        tuners.create("none", backbone, self.options, SEED)  # which gives it precision and checkpointing, as in a run
        own = {"epochs": 1, "batch_size": self.options.batch_size}
        known = methods.options_of(name)
        chosen = {option: value for option, value in own.items() if option in known}
        chosen |= method_options(self.options, name, SEED)
        learner = methods.create(name, **chosen)
        learner.attach(backbone)
        learner.callbacks = Callbacks(lambda batches, _, total: meter.track(batches, "train", total))
        batch_size = chosen.get("batch_size", self.options.batch_size)
        images = self.images(batch_size)
        classes = len(images.classes)
        needed = learner.memory(batch_size, int(backbone.num_features), classes)  # type: ignore[arg-type]
        memory.require(needed, self.device, f"method {name!r}", "lower its width or other sizes by --method-options")
        pixels, labels = (part.to(self.device) for part in (images.pixels, images.labels[:batch_size]))
        with FirstStep() as first:
            learner.train(images, images.classes)
        meter.repeat(lambda: learner.learn(learner.features(pixels), labels), "learn", self.repeats)
        meter.repeat(lambda: learner.predict(learner.features(pixels)), "evaluate", self.repeats)
        costs = [Cost("method", name, phase, batch_size, steps=steps) for phase, steps in meter.phases.items()]
        if first.trained:
            costs[0].selected, costs[0].changed = first.trained, first.changed
            costs[0].changed_fraction = (first.changed or 0) / first.trained
        return costs


def _entries(tuner: Tuner, tuned: Tuned) -> dict[str, Any]:
    """Return which entries were selected, kept and changed in the step in which a tuner measured it."""
    total = sum(p.numel() for p in tuner.backbone.parameters())
    selected = sum(record.selected for record in tuned.selection) or None
    if isinstance(tuner, Full):
        selected = round(tuner.reached() * total)
    kept, changed, everywhere = (next(iter(found), None) for found in (tuned.kept, tuned.changed, tuned.changed_all))
    return {
        "selected": selected,
        "changed": None if everywhere is None else round(everywhere * total),
        "selected_fraction": tuned.selected_fraction,
        "kept_fraction": kept,
        "changed_fraction": changed,
    }
