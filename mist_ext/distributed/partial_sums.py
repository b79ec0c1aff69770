"""Partial sums in a checkpoint: each rank's own, since a resumed run adds to them in the order of the first one."""

from __future__ import annotations

import torch
from torch import Tensor

from mist_ext.distributed import ranks
from mist_ext.distributed.shard import Shard
from mist_ext.distributed.shard_files import TensorOnDisk, entries_of, total


def saved(own: Tensor) -> Tensor:
    """Return what a checkpoint keeps of this rank's sums: a shard of all ranks' sums, concatenated."""
    if ranks.size() == 1:
        return own
    return Shard(own, ranks.rank() * own.numel(), ranks.size() * own.numel())


def restored(kept: Tensor | TensorOnDisk, entries: int) -> Tensor:
    """Return this rank's sums, flattened: the same bits with as many ranks as before, else all shared out again.

    Parameters
    ----------
    kept : Tensor or TensorOnDisk
        What the checkpoint has for `saved`.
    entries : int
        The number of one rank's sums.
    """
    before = total(kept) // entries if entries else 0
    parts = [entries_of(kept, rank * entries, entries) for rank in range(ranks.rank(), before, ranks.size())]
    return torch.stack(parts).sum(0) if parts else torch.zeros(entries)
