"""SGD with momentum for the kept entries of a selection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mist_ext.kernels import ops
from mist_ext.optim.sparse import NamedParameters, SparseOptimizer
from mist_ext.selection import Selection


class SparseSGD(SparseOptimizer):
    """Perform SGD on the selected entries whose gradient a step keeps; the others are neither read nor written.

    Each step draws for every selected entry whether its gradient is kept. A dropped entry keeps its value and its
    momentum, and no weight decay is applied to it. For a kept one the order is `torch.optim.SGD`'s: decay, momentum,
    update. With ``keep=1`` and a selection of everything this is `torch.optim.SGD`.

    With ``drop="updates"`` the momentum of every selected entry takes its gradient and decay in every step, and the
    kept entries move along it. As few weights change, but no gradient is lost. All selected entries are then read
    and written back, from their masters where they have any.

    State is compact: an int32 position and a float32 momentum for each selected entry, and for 16-bit parameters a
    float32 master copy of it, so that small updates are not rounded away.

    Parameters
    ----------
    named_parameters : iterable
        ``model.named_parameters()``, or groups ``{"params": [(name, parameter), ...], "lr": ...}``. Parameters
        without names, as in ``model.parameters()`` or other libraries' groups, are looked up in ``model``.
    selection : Selection
        The entries that are updated; parameters that it does not name are left out.
    lr : float or Tensor
        A tensor is read on the device at every step, for CUDA graphs.
    momentum, weight_decay : float
        As in `torch.optim.SGD`.
    keep : float
        Probability that a selected entry's gradient is kept in a step, 0 to 1.
    seed : int
        Which entries are kept is a pure function of seed, step, the tensor's ordinal and the entry.
    step : int
        The number of steps already applied, where a run goes on with a new optimiser.
    scale_code : mapping of str to Tensor, optional
        By parameter name: uint8, one code a selected entry. A gradient is multiplied by ``scale_table[code]``.
    scale_table : Tensor, optional
        float32, ``[256]``.
    model : Module, optional
        Whose ``named_parameters()`` give the names of parameters that come without.
    drop : str
        What an entry that is not kept loses: ``"gradients"``, as in MIST, or ``"updates"`` alone. Without momentum
        these are the same.
    remember : bool
        Whether the selected entries' values before the first step are kept, one of the parameter's dtype for each, so
        that `delta` can give what was changed with both. They are part of the `state_dict`.

    Raises
    ------
    TypeError
        For parameters without names, where there is no ``model``.
    ValueError
        For a setting out of range, a selected parameter that is missing or has another shape.
    """

    STATE: ClassVar = {"momentum": torch.float32}
    NOT_NEGATIVE = ("lr", "momentum", "weight_decay")
    DROPS: ClassVar[tuple[str, ...]] = ("gradients", "updates")

    def __init__(
        self,
        named_parameters: NamedParameters,
        selection: Selection,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        keep: float = 0.1,
        seed: int = 0,
        step: int = 0,
        scale_code: Mapping[str, Tensor] | None = None,
        scale_table: Tensor | None = None,
        model: nn.Module | None = None,
        drop: str = "gradients",
        remember: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "keep": keep, "drop": drop}
        super().__init__(named_parameters, selection, defaults, seed, step, scale_code, scale_table, model, remember)

    @property
    def needs_dense_gradients(self) -> bool:
        return any(map(_drops_updates, self.param_groups))

    def gradient_share(self, group: dict[str, Any]) -> float | None:
        return 1.0 if _drops_updates(group) else float(group["keep"])

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if group["drop"] not in self.DROPS:
            raise ValueError(f"drop is {group['drop']!r}, expected {' or '.join(map(repr, self.DROPS))}")

    def state_dtypes(self, group: dict[str, Any]) -> dict[str, torch.dtype]:
        return self.STATE if group["momentum"] else {}

    def update(
        self, group: dict[str, Any], shared: dict[str, Any], state: dict[str, list[Tensor]], device: torch.device
    ) -> None:
        momenta, momentum = state.get("momentum", []), group["momentum"]
        if _drops_updates(group):
            # A step of learning rate 0 that keeps everything: all gradients and decays enter the momenta.
            still = {"lr": torch.zeros_like(shared["lr"]), "threshold": ops.keep_threshold(1.0)}
            ops.drop_apply_sgd_(momentum_buffer=momenta, momentum=momentum, **shared | still)
            # A gradient over infinity is none: kept entries move along their momenta as they are.
            shared = shared | {"grad_scale": torch.full((), math.inf, device=device), "weight_decay": 0.0}
            momentum = 1.0
            if "packed" in shared:  # with all selected entries' gradients
                shared |= _nothing_kept(shared, momenta)
        ops.drop_apply_sgd_(momentum_buffer=momenta, momentum=momentum, **shared)


def _drops_updates(group: dict[str, Any]) -> bool:
    return bool(group["drop"] == "updates" and group["momentum"])


def _nothing_kept(shared: dict[str, Any], momenta: list[Tensor]) -> dict[str, Tensor]:
    """Return zeros in the place of the kept entries' gradients, packed."""
    counts = [momentum.numel() for momentum in momenta]
    rule = {name: shared[name] for name in ("threshold", "seed")}
    places = ops.places(counts, shared["first"], shared["ordinal"], step=int(shared["step"]), **rule)
    packed = shared["packed"]
    return {"packed": packed.new_zeros(int(places[-1])), "places": places.to(packed.device)}
