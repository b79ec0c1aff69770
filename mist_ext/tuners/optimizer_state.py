"""The states of optimisers, checked when they are restored: torch's own take buffers of any shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mist_ext.optim import MaskedGradient, SparseSGD


def load_state(optimizer: torch.optim.Optimizer | MaskedGradient, state: dict[str, Any]) -> None:
    """Load what the ``state_dict`` of an equal optimiser gave.

    Raises
    ------
    ValueError
        If it is that of other options or parameters, or none.
    """
    try:
        if isinstance(optimizer, SparseSGD | MaskedGradient):
            optimizer.load_state_dict(state)
        else:
            _load_dense(optimizer, state)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"the checkpoint's state of {type(optimizer).__name__} does not fit this run ({reason}); start the run "
            "anew with --overwrite"
        ) from error


def _load_dense(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    if state["param_groups"] != optimizer.state_dict()["param_groups"]:
        raise ValueError("it is that of another learning rate, momentum, or set of parameters")
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for kind, value in values.items():
            if not isinstance(parameter, Tensor) or (isinstance(value, Tensor) and value.shape != parameter.shape):
                raise ValueError(f"its {kind!r} has not the shape of its parameter")
