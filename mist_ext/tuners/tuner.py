"""What every tuner is: one way to adapt the backbone to a task, with one set of options and measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.utils.data import Dataset

from mist_ext import backbones
from mist_ext.options import option

T = TypeVar("T")
Track = Callable[[Iterable[T], str, int], Iterable[T]]  # passes an iterable through a progress display


def untracked(iterable: Iterable[T], _description: str, _total: int) -> Iterable[T]:
    """No progress display."""
    return iterable


IN_BACKWARD = (
    "Update each block as soon as backward has made its gradients, which are then freed; the bits are the same. Exact "
    "dynamics only; null: where the dynamics allow it."
)


@dataclass
class TuningOptions:
    """How tuners tune; each uses what concerns it. ``mist run --help`` explains every option."""

    epochs: int = option(6, "Passes over a task's training images. MIST's first one scores and updates nothing.")
    batch_size: int = option(32, "Images a batch; the second view doubles them.")
    lr: float = option(3e-3, "Learning rate of the backbone for the sparse tuners, mist and random.")
    full_lr: float = option(2e-4, "Learning rate of the backbone for the tuner full.")
    projector_lr: float = option(1e-2, "Learning rate of the objective's projector.")
    momentum: float = option(0.9, "SGD's momentum.")
    weight_decay: float = option(5e-4, "SGD's weight decay; in exact dynamics only kept entries decay.")
    rate: float = option(0.05, "Fraction of each tensor's entries that is selected.")
    keep: float = option(0.1, "Probability that a selected entry's gradient is kept in a step: 1 - drop rate.")
    dynamics: Literal["exact", "published"] = option(
        "exact",
        "exact: a dropped entry keeps value and momentum. published: the masked gradient goes to torch's dense SGD.",
    )
    in_backward: bool | None = option(False, IN_BACKWARD)
    whole: str = option(
        "bias|norm",
        "Regular expression: tensors whose name it matches are selected whole, as are those of at most one dimension.",
    )
    strike_factor: float = option(
        0.9, "A gradient is multiplied by this for every earlier task that selected its entry."
    )
    freeze_rate: float = option(
        5e-4, "Fraction of each tensor, the highest scores, that is frozen for all later tasks."
    )
    precision: Literal["fp32", "bf16", "bf16-pure"] = option(
        "fp32",
        "bf16: mixed precision while tuning, parameters stay fp32. bf16-pure: the backbone's parameters are bf16, "
        "tuned through compact fp32 masters.",
    )
    compile: bool = option(False, "torch.compile for each block of the backbone.")
    checkpointing: bool = option(False, "Compute activations anew in backward instead of keeping them: less memory.")

    def check(self) -> None:
        """Raise ValueError for the first option that is out of range."""
        above_zero = ("epochs", "batch_size", "lr", "full_lr", "projector_lr", "rate", "keep", "strike_factor")
        for name in above_zero:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("momentum", "weight_decay", "freeze_rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("rate", "keep", "strike_factor", "freeze_rate", "momentum"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at most 1")
        if self.in_backward and self.dynamics == "published":
            raise ValueError(
                "in_backward is True, but published dynamics need the gradients of the whole model at once; "
                "leave it out, or use dynamics exact"
            )


def mean_max(values: list[float]) -> dict[str, float] | None:
    """The mean and the largest of some measurements, None of none."""
    return {"mean": sum(values) / len(values), "max": max(values)} if values else None


@dataclass
class Tuned:
    """What tuning on one task took and changed.

    Attributes
    ----------
    seconds : dict
        By phase: score, select, tune.
    selected_fraction : float or None
        Selected entries over all entries of the tensors that are selected by score.
    kept, changed, changed_all : list of float
        Fractions measured in sampled steps: entries whose gradient was kept, and entries whose bits differ after the
        step, of the tensors selected by score; and those that differ of the whole backbone.
    """

    seconds: dict[str, float] = field(default_factory=lambda: {"score": 0.0, "select": 0.0, "tune": 0.0})
    selected_fraction: float | None = None
    kept: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    changed_all: list[float] = field(default_factory=list)

    def fractions(self) -> dict[str, Any]:
        """As they stand in results.json."""
        return {
            "selected_fraction": self.selected_fraction,
            "kept_fraction": mean_max(self.kept),
            "changed_fraction": mean_max(self.changed),
            "changed_fraction_all": mean_max(self.changed_all),
        }


class Tuner:
    """Leaves the backbone as it is; the tuners that train override `tune`.

    Parameters
    ----------
    backbone : Module
        Images to features; has ``num_features``. Tuned in place.
    options : TuningOptions
    seed : int
        All of a tuner's draws follow from it.
    """

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        options.check()
        if options.precision == "bf16-pure":
            backbone.to(torch.bfloat16)
        if options.checkpointing:
            backbones.set_checkpointing(backbone)
        if options.compile:
            backbones.compile_blocks(backbone)
        self.backbone = backbone
        self.options = options
        self.seed = seed

    def tune(self, images: Dataset, track: Track = untracked) -> Tuned:
        """Adapt the backbone to the next task's training images."""
        return Tuned()
