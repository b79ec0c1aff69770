"""Tuners: one way to adapt the backbone per file. None of them knows a method's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mist_ext.registry import TUNERS as TUNERS

if TYPE_CHECKING:
    from torch import nn

    from mist_ext.config import TuningOptions
    from mist_ext.tuners.tuner import Tuner


def named(name: str) -> type[Tuner]:
    """Return the class of a tuner; ValueError as `Registry.resolve` raises it."""
    from mist_ext.tuners.tuner import Tuner

    found: type[Tuner] = TUNERS.resolve(name, Tuner)
    return found


def create(name: str, backbone: nn.Module, options: TuningOptions, seed: int) -> Tuner:
    """Make a tuner for a backbone; ValueError for an unknown name, and for options or a backbone that do not suit."""
    return named(name)(backbone, options, seed)
