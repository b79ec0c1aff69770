"""The part of a selection that a rank has, where the selected tensors are sharded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.distributed.shard import Shard, local


@dataclass(frozen=True)
class SelectionShard:
    """Where a rank's part of a tensor, and of its selected entries, lies in the whole.

    Attributes
    ----------
    shape : tuple of int
        The whole tensor's.
    begin : int
        The position in the whole, flattened tensor of the part's entry 0.
    first : int
        How many of the selected entries lie before it.
    count : int
        How many entries of the whole tensor are selected.
    """

    shape: tuple[int, ...]
    begin: int
    first: int
    count: int


def local_selection(
    name: str, index: Tensor | None, tensor: Tensor
) -> tuple[Tensor | None, tuple[int, ...], SelectionShard]:
    """Return this rank's part of a whole tensor's index, the shape of the rank's rows, and where they lie."""
    part, shape = Shard.of(name, tensor), tuple(local(tensor).shape)
    whole, begin, end = tuple(tensor.shape), part.first, part.first + len(part)
    if index is None:
        return None, shape, SelectionShard(whole, begin, begin, part.total)
    first, last = torch.searchsorted(index, torch.tensor([begin, end], dtype=index.dtype, device=index.device)).tolist()
    return index[first:last] - begin, shape, SelectionShard(whole, begin, first, index.numel())
