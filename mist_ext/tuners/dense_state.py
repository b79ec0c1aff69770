"""The state of torch's own optimisers, checked when it is restored: torch takes buffers of any shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def load_dense(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what the ``state_dict`` of an equal optimiser gave.

    Raises
    ------
    ValueError
        If it is that of other options or parameters.
    """
    if state["param_groups"] != optimizer.state_dict()["param_groups"]:
        raise ValueError("the optimiser's state is that of another learning rate, momentum, or set of parameters")
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for kind, value in values.items():
            if not isinstance(parameter, Tensor) or (isinstance(value, Tensor) and value.shape != parameter.shape):
                raise ValueError(f"the optimiser's {kind!r} has not the shape of its parameter")
