"""A model's tensors by name, and their bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.distributed.shard import is_sharded
from mist_ext.kernels.checker import MOST_ENTRIES

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


def tensors_of(state: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a module's ``state_dict()``, in the module's own memory, or those of a state dict.

    Raises
    ------
    TypeError
        For anything else; the message names what is no tensor.
    ValueError
        For a tensor that has no plain values here: sharded, sparse, quantised, on meta, of more than 2^31 - 1 entries
        or of a dtype that is not in `DTYPES`.
    """
    given: Any = state.state_dict() if isinstance(state, nn.Module) else state
    if not isinstance(given, Mapping):
        raise TypeError(f"a delta belongs to a module or a state dict, not to a {type(state).__name__}")
    tensors = {}
    for name, tensor in given.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"{name!r} is a {type(tensor).__name__}, expected a tensor under a name")
        if problem := _problem(tensor):
            raise ValueError(f"{name!r} {problem}")
        tensors[name] = tensor.detach()
    return tensors


def _problem(tensor: Tensor) -> str | None:
    """Return why a tensor has no plain values here, or None."""
    if is_sharded(tensor):
        return (
            "is sharded over several processes; gather the model with "
            "torch.distributed.checkpoint.state_dict.get_model_state_dict(full_state_dict=True) and give that"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        return f"is no dense tensor with values ({tensor.layout}, {tensor.dtype}, {tensor.device})"
    if tensor.dtype not in DTYPES.values():
        return f"has dtype {tensor.dtype}, expected one of {', '.join(DTYPES)}"
    if tensor.numel() > MOST_ENTRIES:
        return f"has {tensor.numel()} entries; positions are int32, so at most {MOST_ENTRIES} are supported"
    return None


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that a safetensors file cannot hold."""
    for name in names:
        if name == "__metadata__" or name.encode("utf-8", "ignore").decode() != name:
            raise ValueError(f"a tensor is named {name!r}, which a safetensors file cannot hold; rename it")


def bits(tensor: Tensor) -> Tensor:
    """Return a tensor's bits as integers, flat: in its own memory where it is contiguous, else of a copy."""
    return tensor.detach().reshape(-1).view(_BITS[tensor.element_size()])
