"""Which part of a selection of whole tensors a rank has, where they are sharded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.distributed.shard import Shard, local


@dataclass(frozen=True)
class Cut:
    """Of which tensor, and of which selection of its entries, a rank has a part.

    Attributes
    ----------
    shape : tuple of int
        The whole tensor's.
    begin : int
        The place in the whole, flattened tensor of the part's entry 0.
    first : int
        How many of the selected entries lie before it.
    count : int
        How many entries of the whole tensor are selected.
    """

    shape: tuple[int, ...]
    begin: int
    first: int
    count: int


def cut(name: str, index: Tensor | None, tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...], Cut]:
    """This rank's part of a whole tensor's index, the shape of the rank's rows, and where they lie."""
    part, shape = Shard.of(name, tensor), tuple(local(tensor).shape)
    whole, begin, end = tuple(tensor.shape), part.first, part.first + len(part)
    if index is None:
        return None, shape, Cut(whole, begin, begin, part.total)
    first, last = torch.searchsorted(index, torch.tensor([begin, end], dtype=index.dtype, device=index.device)).tolist()
    return index[first:last] - begin, shape, Cut(whole, begin, first, index.numel())
