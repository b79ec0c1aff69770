"""Which of how many processes this is. Without torch.distributed there is one, and nothing here costs anything."""

from __future__ import annotations

import os

import torch.distributed as dist


def size() -> int:
    """The number of processes that work on a run together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and shows progress."""
    return rank() == 0


def on_this_machine() -> int:
    """How many of them are on this machine: torchrun's LOCAL_WORLD_SIZE."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


def device_index() -> int:
    """The number of this process's GPU on its machine: torchrun's LOCAL_RANK."""
    return int(os.environ.get("LOCAL_RANK", "0"))
