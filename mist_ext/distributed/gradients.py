"""Whole gradients and sums of squared ones, reduced over the ranks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mist_ext.distributed import ranks

# Buffers are the same on every rank, since nothing changes them. torch 2.15 has another name for saying so.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


def averaging(module: nn.Module) -> nn.Module:
    """The module, with gradients that backward averages over the ranks: PyTorch's DDP, overlapped with backward.

    DDP would group the gradients anew after its first step, and with them the order in which three or more ranks' are
    added: a run that goes on would not end with the same bits. Where parameters may be unused, it does not.
    """
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
    return DistributedDataParallel(module, find_unused_parameters=True, **_NO_BUFFERS)


def add_up_(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over the ranks, which must all give as many, of the same shapes."""
    if ranks.size() > 1:
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
