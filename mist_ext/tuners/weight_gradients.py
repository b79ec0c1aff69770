"""Whether a tuner's backward pass computes whole weight gradients, or the kept entries alone."""

from __future__ import annotations

from typing import Literal

import torch

from mist_ext.config import TuningOptions
from mist_ext.distributed import ranks


def weight_gradients(options: TuningOptions, device: torch.device) -> Literal["sampled", "dense"]:
    """Return what the option stands for on a device.

    ``auto`` is sampled on a CPU, where it was measured to be faster, unless whole gradients are needed.
    """
    drops_updates = options.drop == "updates" and options.momentum > 0 and ranks.size() > 1
    reduced = options.shard or options.exchange == "dense" or drops_updates  # whole, by FSDP2 or DDP
    if options.dynamics != "exact" or reduced:
        return "dense"
    if options.weight_gradients == "auto":
        return "sampled" if device.type == "cpu" and options.in_backward is None else "dense"
    return options.weight_gradients
