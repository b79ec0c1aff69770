"""SGD for the entries with the largest gradients, selected anew in every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.shard import is_sharded
from mist_ext.indices import selected_count
from mist_ext.kernels import ops
from mist_ext.optim.sgd import SparseSGD


class LargestGradientSGD(SparseSGD):
    """`SparseSGD` whose selection is each step's own: in each tensor the entries with the largest absolute gradient.

    An entry that a step passes over keeps its value and its momentum, as in `SparseSGD`. Since nobody knows which
    entries come next, momentum is dense, 4 bytes for every entry of the model, as is the float32 master of a 16-bit
    parameter; what a step takes of them is gathered, updated by the same kernel and put back.

    Parameters
    ----------
    named_parameters : iterable
        As in `SparseSGD`. A group's ``rate`` is the fraction of each tensor that a step selects, as `selected_count`
        turns it into a number; groups without a rate are tuned as `SparseSGD` tunes fully selected tensors.
    selection : Selection
        With every tensor fully selected (`Selection.whole`).
    lr, momentum, weight_decay, keep, seed, step, scale_code, scale_table
        As in `SparseSGD`; ``keep`` draws among the entries that a step selects.

    Raises
    ------
    ValueError
        For a sharded parameter, and as `SparseSGD`.
    RuntimeError
        By `step`, for a gradient that is NaN; the message names the parameter.
    """

    DROPS = ("gradients",)  # a step knows no entries but those that it selects
    needs_dense_gradients = True

    def gradient_share(self, group: dict[str, Any]) -> float | None:
        return None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        for name, parameter in param_group["params"]:
            if is_sharded(parameter):
                raise ValueError(f"{name!r} is sharded, but its largest gradients show in the whole tensor alone")
        super().add_param_group(param_group)

    def update(
        self, group: dict[str, Any], shared: dict[str, Any], state: dict[str, list[Tensor]], device: torch.device
    ) -> None:
        rate = group.get("rate")
        if rate is None:
            super().update(group, shared, state, device)
            return
        # Not the square, which is 0 for gradients below 1e-23.
        sizes = [gradient.abs().float() for gradient in shared["grad"]]
        index = ops.select(sizes, [selected_count(size.numel(), rate) for size in sizes])
        offsets = [chosen.long() for chosen in index]
        dense = [*state.values(), shared["master"]]
        compact = [
            [values[at] if values.numel() else values for values, at in zip(kind, offsets, strict=True)] if kind else []
            for kind in dense
        ]
        own = dict(zip(state, compact[:-1], strict=True))
        super().update(group, shared | {"index": index, "master": compact[-1]}, own, device)
        for kind, updated in zip(dense, compact, strict=True):
            for values, new, at in zip(kind, updated, offsets if kind else [], strict=True):
                if values.numel():
                    values[at] = new
