"""Learning-rate schedules: from the share of the training that is done to the learning rate's factor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer


def constant(progress: float) -> float:
    """Return 1: no schedule."""
    return 1.0


def cosine(progress: float) -> float:
    """Return half a cosine: from 1 at the beginning to 0 at the end."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def last_tenth(progress: float) -> float:
    """Return 1, and 0.1 in the last tenth."""
    return 1.0 if progress < 0.9 else 0.1


@contextmanager
def scaled(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply the learning rate of every group by a factor while the block runs."""
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
