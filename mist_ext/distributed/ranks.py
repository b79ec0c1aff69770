"""The rank of this process and the number of processes: 0 of 1 without torch.distributed."""

from __future__ import annotations

import os

import torch.distributed as dist


def size() -> int:
    """Return the number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Return whether this is rank 0, which writes files and shows progress."""
    return rank() == 0


def on_this_machine() -> int:
    """Return how many processes of the run are on this machine: torchrun's LOCAL_WORLD_SIZE."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


def device_index() -> int:
    """Return the number of this process's GPU on its machine: torchrun's LOCAL_RANK."""
    return int(os.environ.get("LOCAL_RANK", "0"))
