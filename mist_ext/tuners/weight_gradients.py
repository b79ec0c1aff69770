"""Whether a tuner's backward pass computes whole weight gradients, or the kept entries alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from mist_ext.config import TuningOptions
from mist_ext.distributed import ranks
from mist_ext.optim.sampled_layers import layers_of
from mist_ext.tuners.contrastive import tunable


def weight_gradients(options: TuningOptions, device: torch.device, backbone: nn.Module) -> Literal["sampled", "dense"]:
    """Return what the option stands for on a device.

    ``auto`` is sampled on a CPU, where it was measured to be faster, unless whole gradients are needed or nothing of
    the backbone can be sampled.
    """
    drops_updates = options.drop == "updates" and options.momentum > 0 and ranks.size() > 1
    reduced = options.shard or options.exchange == "dense" or drops_updates  # whole, by FSDP2 or DDP
    if options.dynamics != "exact" or reduced:
        return "dense"
    if options.weight_gradients == "auto":
        faster = device.type == "cpu" and options.in_backward is None
        return "sampled" if faster and can_sample(options, backbone) else "dense"
    return options.weight_gradients


def can_sample(options: TuningOptions, backbone: nn.Module) -> bool:
    """Return whether the weight of a layer whose gradient can be sampled is tuned."""
    layers = layers_of(backbone)
    return any(parameter in layers for _, parameter in tunable(backbone, options))
