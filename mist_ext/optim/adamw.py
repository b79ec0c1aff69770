"""AdamW for the kept entries of a selection."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mist_ext.kernels import ops
from mist_ext.optim.sparse import NamedParameters, SparseOptimizer
from mist_ext.selection import Selection

LARGEST_BETA = 0.99998  # its correction takes some 870,000 updates to vanish, a table of 7 MB


class SparseAdamW(SparseOptimizer):
    """Perform AdamW on the selected entries whose gradient a step keeps; the others are neither read nor written.

    A dropped entry keeps its value, both averages and its count of updates, and no weight decay is applied to it. For a
    kept one the order is `torch.optim.AdamW`'s: decay, averages, update. The averages begin at zero when an entry is
    first kept, not when the optimiser is made, so their bias is corrected by the entry's own number of updates: with
    the number of steps instead, an entry that is kept for the first time in step 1000 would move by a fraction of the
    learning rate. With ``keep=1`` and a selection of everything this is `torch.optim.AdamW`.

    State is compact: an int32 position, two float32 averages and an int32 count for each selected entry, and for 16-bit
    parameters a float32 master copy of it.

    Parameters
    ----------
    lr : float or Tensor
        As in `SparseSGD`.
    betas : tuple of float
        Decay of the averages of the gradient and of its square, each 0 to 0.99998.
    eps : float
        Added to the root of the average square.
    weight_decay : float
        Decoupled: a kept entry is multiplied by ``1 - lr * weight_decay``.
    named_parameters, selection, keep, seed, step, scale_code, scale_table, model, remember
        As in `SparseSGD`.

    Raises
    ------
    ValueError
        For a setting out of range, a selected parameter that is missing or has another shape.
    """

    STATE: ClassVar = {"exp_avg": torch.float32, "exp_avg_sq": torch.float32, "updates": torch.int32}
    NOT_NEGATIVE = ("lr", "eps", "weight_decay")

    def __init__(
        self,
        named_parameters: NamedParameters,
        selection: Selection,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        keep: float = 0.1,
        seed: int = 0,
        step: int = 0,
        scale_code: Mapping[str, Tensor] | None = None,
        scale_table: Tensor | None = None,
        model: nn.Module | None = None,
        remember: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "keep": keep}
        super().__init__(named_parameters, selection, defaults, seed, step, scale_code, scale_table, model, remember)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"betas is {betas}, expected two numbers")
        for number, beta in enumerate(betas):
            if not 0 <= beta <= LARGEST_BETA:
                raise ValueError(f"betas[{number}] is {beta}, expected 0 to {LARGEST_BETA}")

    def update(
        self, group: dict[str, Any], shared: dict[str, Any], state: dict[str, list[Tensor]], device: torch.device
    ) -> None:
        beta1, beta2 = group["betas"]
        ops.drop_apply_adamw_(
            exp_avg=state["exp_avg"],
            exp_avg_sq=state["exp_avg_sq"],
            updates=state["updates"],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            correction=bias_correction(beta1, beta2, device),
            **shared,
        )


@functools.lru_cache(maxsize=16)
def bias_correction(beta1: float, beta2: float, device: torch.device) -> Tensor:
    """Return ``1 - beta1**n`` and ``sqrt(1 - beta2**n)`` until both are 1 in float32: float32, ``[2, n]``."""
    last = max(1 if beta == 0 else math.ceil(math.log(2**-25) / math.log(beta)) for beta in (beta1, beta2))
    n = torch.arange(last + 1, dtype=torch.float64)
    return torch.stack([1 - beta1**n, (1 - beta2**n).sqrt()]).float().to(device)
