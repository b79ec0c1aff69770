"""Gradients, and other dense tensors, reduced over the ranks."""

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


def data_parallel(module: nn.Module) -> nn.Module:
    """Wrap a module in PyTorch's DDP, so that backward averages its gradients over the ranks.

    DDP groups the gradients anew after its first step, which changes the order in which those of three or more ranks
    are added: a resumed run would end with other bits. With ``find_unused_parameters`` it keeps the first grouping.
    """
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
    return DistributedDataParallel(module, find_unused_parameters=True, **_NO_BUFFERS)


def add_up_(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks (all-reduce); all ranks must give as many, of the same shapes."""
    if ranks.size() > 1:
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
