"""A backbone that does not fit on one device: spread over the ranks by rows, block after block (PyTorch's FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn

from mist_ext.distributed import ranks


def shard(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Leave of each parameter this rank's rows on the device; whole ones exist only while their block is used.

    Backward gives every rank the sum over the ranks of the gradients of its rows, as `Rows` wants it.

    Parameters
    ----------
    model : Module
        The same on every rank, best on the CPU, from where one block after the other goes to the device.
    blocks : iterable of Module
        What is brought together at once; what lies outside of them is brought together with the model.
    device : torch.device
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
