"""Sums that every rank adds up for itself, on the disk: each one's own, since their sum could not go on alike."""

from __future__ import annotations

import torch
from torch import Tensor

from mist_ext.distributed import ranks
from mist_ext.distributed.shard import Shard
from mist_ext.distributed.stored import Stored, taken


def saved(own: Tensor) -> Tensor:
    """What a checkpoint keeps of this rank's sums: its part of those of all ranks, one behind the other."""
    if ranks.size() == 1:
        return own
    return Shard(own, ranks.rank() * own.numel(), ranks.size() * own.numel())


def restored(kept: Tensor | Stored, entries: int) -> Tensor:
    """This rank's sums, flattened, bit for bit where there are as many ranks as before; else all are dealt out.

    Parameters
    ----------
    kept : Tensor or Stored
        What was made of `saved`.
    entries : int
        Of the sums of one rank.
    """
    total = kept.total if isinstance(kept, Shard | Stored) else kept.numel()
    before = total // entries if entries else 0
    parts = [taken(kept, rank * entries, entries) for rank in range(ranks.rank(), before, ranks.size())]
    return torch.stack(parts).sum(0) if parts else torch.zeros(entries)
