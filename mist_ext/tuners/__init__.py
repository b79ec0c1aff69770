"""Tuners: one way to adapt the backbone per file. None of them knows a method's name."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from mist_ext.plugins import plugins
from mist_ext.suggest import unknown

if TYPE_CHECKING:
    from torch import nn

    from mist_ext.config import TuningOptions
    from mist_ext.tuners.tuner import Tuner

# Where each is, so that naming them imports no torch.
TUNERS = {
    "none": "mist_ext.tuners.none:Frozen",
    "mist": "mist_ext.tuners.mist:MIST",
    "full": "mist_ext.tuners.full:Full",
    "random": "mist_ext.tuners.random:Random",
}
TUNERS |= {name: where for name, where in plugins("tuners").items() if name not in TUNERS}


def create(name: str, backbone: nn.Module, options: TuningOptions, seed: int) -> Tuner:
    """Make a tuner for a backbone; an unknown name raises ValueError with the nearest ones."""
    if name not in TUNERS:
        raise unknown("tuner", name, TUNERS)
    return pkgutil.resolve_name(TUNERS[name])(backbone, options, seed)
