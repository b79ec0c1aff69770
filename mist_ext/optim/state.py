"""The compact state of a parameter: its tensors, one value a selected entry, and their dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mist_ext.optim.groups import Part
from mist_ext.optim.remembering import BEFORE
from mist_ext.selection import Selection

if TYPE_CHECKING:
    from mist_ext.optim.sparse import SparseOptimizer


@torch.no_grad()
def initial_state(optimizer: SparseOptimizer, name: str, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    """Return a parameter's state before the first step."""
    index = optimizer.selection[name]
    count = optimizer.selection.count(name)
    state = {}
    if index is not None:
        state["index"] = index.to(parameter.device, copy=True)
    for kind, dtype in optimizer.state_dtypes(group).items():
        state[kind] = torch.zeros(count, dtype=dtype, device=parameter.device)
    if parameter.dtype != torch.float32:
        flat = parameter.detach().view(-1)
        state["master"] = (flat if index is None else flat[state["index"].long()]).float()
    if optimizer.remember:
        flat = parameter.detach().view(-1)
        state[BEFORE] = (flat if index is None else flat[state["index"].long()]).clone()
    if (code := optimizer.scale_code.get(name)) is not None:
        if code.shape != (count,) or code.dtype != torch.uint8:
            raise ValueError(f"scale_code of {name!r} is {code.dtype} {list(code.shape)}, expected uint8 [{count}]")
        if optimizer.scale_table is None or optimizer.scale_table.shape != (256,):
            raise ValueError("scale_code needs scale_table, float32 [256], one factor for each code")
        state["scale_code"] = code.to(parameter.device, copy=True)
    return state


def own_state(part: Part, selection: Selection, kind: str, dtype: torch.dtype) -> list[Tensor]:
    """Return one of the rule's state lists; of zeros where a scheduler has just switched momentum on."""
    try:
        return [state[kind] for state in part.states]
    except KeyError:
        for name, p, state in zip(part.names, part.params, part.states, strict=True):
            if kind not in state:
                state[kind] = torch.zeros(selection.count(name), dtype=dtype, device=p.device)
    return [state[kind] for state in part.states]


def fixed_dtypes(optimizer: SparseOptimizer, name: str, parameter: Tensor) -> dict[str, torch.dtype]:
    """Return names and dtypes of the state that every rule keeps of a parameter."""
    needed = {
        "index": optimizer.selection[name] is not None,
        "master": parameter.dtype != torch.float32,
        "scale_code": name in optimizer.scale_code,
        BEFORE: optimizer.remember,
    }
    dtypes = {"index": torch.int32, "master": torch.float32, "scale_code": torch.uint8, BEFORE: parameter.dtype}
    return {kind: dtype for kind, dtype in dtypes.items() if needed[kind]}
