"""What every tuner is: one way to adapt the backbone to a task, with one set of options and measurements."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import msgspec
import torch
from torch import nn
from torch.utils.data import Dataset

from mist_ext import backbones
from mist_ext.config import TuningOptions
from mist_ext.results.record import Cost, Count, Fraction, MeanMax, Measured, TensorRecord
from mist_ext.system.callbacks import NO_CALLBACKS, Callbacks
from mist_ext.system.costs import Costs
from mist_ext.system.renamed import Renamed, require_current_names

if not TYPE_CHECKING:  # which would believe that everything can be imported from here

    def __getattr__(name: str) -> NoReturn:
        if name in ("never", "untracked", "Pause", "Track"):
            raise ImportError(
                f"{__name__} has no {name!r} any more: tune and select take neither track nor pause; leave them out, "
                "and call self.callbacks.progress and self.callbacks.checkpoint_if_due instead"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def mean_max(values: list[float]) -> MeanMax | None:
    """Return the mean and the largest of some measurements, None of none."""
    return MeanMax(sum(values) / len(values), max(values)) if values else None


class _Costs(msgspec.Struct, forbid_unknown_fields=True):
    seconds: dict[str, Cost]
    peak_memory_bytes: dict[str, Count | None]


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    costs: _Costs
    selected_fraction: Fraction | None
    selection: list[TensorRecord]
    kept: list[Fraction]
    changed: list[Fraction]
    changed_all: list[Fraction]
    losses: dict[str, list[Measured]]


@dataclass
class Tuned:
    """What tuning on one task took and changed.

    Attributes
    ----------
    costs : Costs
        Of the phases score, select and tune.
    selected_fraction : float or None
        Selected entries over all entries of the tensors that are selected by score.
    selection : list of TensorRecord
        One for each tensor of the backbone; empty where nothing is selected.
    kept, changed, changed_all : list of float
        Fractions measured in sampled steps: entries whose gradient was kept, and entries whose bits differ after the
        step, of the tensors selected by score; and those that differ of the whole backbone.
    losses : dict of list
        By phase, score and tune: the mean loss of each epoch's batches.
    """

    costs: Costs = field(default_factory=Costs)
    selected_fraction: float | None = None
    selection: list[TensorRecord] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    changed_all: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device | None = None) -> Tuned:
        """Rebuild the measurements that a `state_dict` holds; later costs are measured on ``device``."""
        saved = msgspec.structs.asdict(msgspec.convert(state, _Saved))
        return cls(**{**saved, "costs": Costs(device, **msgspec.structs.asdict(saved["costs"]))})

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**dataclasses.asdict(self), "selection": msgspec.to_builtins(self.selection)}

    def fractions(self) -> dict[str, Any]:
        """Return the fractions of a `TaskRecord`, by its names."""
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

    Attributes
    ----------
    moves_backbone : bool
        Class attribute: whether `tune` changes the backbone, so that earlier features are no longer its own.
    shardable : bool
        Class attribute: whether it works on a backbone that FSDP2 has spread over several processes.
    callbacks : Callbacks
        Show progress, save checkpoints and log losses; they do nothing unless they are set.
    """

    moves_backbone: ClassVar[bool] = False
    shardable: ClassVar[bool] = False
    callbacks: Callbacks = NO_CALLBACKS

    watch = Renamed("callbacks.log")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        require_current_names(cls)

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        options.check()
        self.check(backbone, options)
        if options.precision == "bf16-pure":
            backbone.to(torch.bfloat16)
        if options.checkpointing:
            backbones.set_checkpointing(backbone)
        if options.compile:
            backbones.compile_blocks(backbone)
        self.backbone = backbone
        self.options = options
        self.seed = seed

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        """Raise ValueError where the backbone or the options do not suit this tuner."""

    def tune(self, images: Dataset) -> Tuned:
        """Adapt the backbone to the next task's training images, or go on with a task that was interrupted.

        Parameters
        ----------
        images : Dataset
            Of float32 images ``[3, height, width]`` and labels.
        """
        return Tuned()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, except the backbone's own weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, in the middle of a task where it was taken there."""
