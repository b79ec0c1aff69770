"""Tuners: one way to adapt the backbone per file. None of them knows a method's name."""

from __future__ import annotations

from torch import nn

from mist_ext.suggest import unknown
from mist_ext.tuners.full import Full
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.none import Frozen
from mist_ext.tuners.random import Random
from mist_ext.tuners.tuner import Tuner, TuningOptions

TUNERS: dict[str, type[Tuner]] = {"none": Frozen, "mist": MIST, "full": Full, "random": Random}


def create(name: str, backbone: nn.Module, options: TuningOptions, seed: int) -> Tuner:
    """Make a tuner for a backbone; an unknown name raises ValueError with the nearest ones."""
    if name not in TUNERS:
        raise unknown("tuner", name, TUNERS)
    return TUNERS[name](backbone, options, seed)
