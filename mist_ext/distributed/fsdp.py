"""Sharding of a backbone that does not fit on one device over the ranks, by PyTorch's FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn

from mist_ext.distributed import ranks


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Shard a model by rows: each rank keeps its rows of every parameter; a block is whole only while it is used.

    Backward gives every rank the sum over the ranks of its rows' gradients, as `BatchRows` expects it.

    Parameters
    ----------
    model : Module
        The same on every rank, best on the CPU: its blocks move to the device one after the other.
    blocks : iterable of Module
        The units that are gathered at once; parameters outside of them are gathered with the model.
    device : torch.device
        Where this rank's rows lie.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (ranks.size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    # Features are a view of all tokens' where one is taken; nothing here changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
