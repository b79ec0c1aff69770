"""Tuners: one way to adapt the backbone per file. None of them knows a method's name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from mist_ext.plugins import plugins, resolve
from mist_ext.suggest import unknown

if TYPE_CHECKING:
    from torch import nn

    from mist_ext.config import TuningOptions
    from mist_ext.tuners.tuner import Tuner

# Where each is, so that naming them imports no torch.
TUNERS = {
    "none": "mist_ext.tuners.none:Frozen",
    "mist": "mist_ext.tuners.mist:MIST",
    "random": "mist_ext.tuners.random:Random",
    "magnitude": "mist_ext.tuners.magnitude:Magnitude",
    "gradient": "mist_ext.tuners.gradient:Gradient",
    "full": "mist_ext.tuners.full:Full",
    "bitfit": "mist_ext.tuners.bitfit:BitFit",
    "lora": "mist_ext.tuners.lora:LoRA",
}
TUNERS |= {name: where for name, where in plugins("tuners").items() if name not in TUNERS}
EXTRAS = {"lora": "peft"}  # what a tuner needs besides, by the name of the package and of the extra


def check_name(name: str) -> None:
    """Raise ValueError for an unknown tuner, with the nearest names, or one whose package is not installed."""
    if name not in TUNERS:
        raise unknown("tuner", name, TUNERS)
    extra = EXTRAS.get(name)
    if extra is not None and importlib.util.find_spec(extra) is None:
        raise ValueError(f'tuner {name!r} needs {extra}, which is not installed: pip install ".[{extra}]"')


def named(name: str) -> type[Tuner]:
    """The class of a tuner; ValueError as `check_name` raises it, or `resolve` for one of another package."""
    from mist_ext.tuners.tuner import Tuner

    check_name(name)
    return resolve("tuners", name, TUNERS[name], Tuner)


def create(name: str, backbone: nn.Module, options: TuningOptions, seed: int) -> Tuner:
    """Make a tuner for a backbone; ValueError for an unknown name, and for options or a backbone that do not suit."""
    return named(name)(backbone, options, seed)
