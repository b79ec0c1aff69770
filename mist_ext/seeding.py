"""Seeds of a run's random numbers: pure functions of their purpose, so workers, resuming and ranks change nothing."""

from __future__ import annotations

import hashlib

import torch


def draw_seed(*key: int | str) -> int:
    """Return a seed in [0, 2^63) for a key such as ``(seed, "views", task, epoch, step)``."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `draw_seed`."""
    return torch.Generator().manual_seed(draw_seed(*key))
