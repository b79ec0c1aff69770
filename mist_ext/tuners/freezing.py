"""Parameters that a tuner leaves as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def all_frozen_but(trained: Iterable[nn.Parameter], everything: Iterable[nn.Parameter]) -> Iterator[None]:
    """Keep all parameters but the trained ones frozen while the block runs."""
    kept = {id(p) for p in trained}
    frozen = [p for p in everything if p.requires_grad and id(p) not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
