"""Checks of parameters, selections and numbers that optimisers are made of; errors name what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor

from mist_ext.distributed.shard import is_sharded, local
from mist_ext.selection import Selection

FLOATING = (torch.float32, torch.bfloat16, torch.float16)


def check_draw(seed: int, step: int) -> None:
    """Raise ValueError unless seed and step are whole numbers from 0 to 2^63 - 1."""
    for what, value in (("seed", seed), ("step", step)):
        if not isinstance(value, Integral) or not 0 <= value < 2**63:
            raise ValueError(f"{what} is {value!r}, expected a whole number from 0 to 2^63 - 1")


def check_shape(selection: Selection, name: str, parameter: Tensor) -> None:
    """Raise ValueError unless the parameter has the shape it was selected by."""
    if is_sharded(parameter) != (name in selection.shards):
        how = ("sharded", "whole") if is_sharded(parameter) else ("whole", "sharded")
        raise ValueError(
            f"{name!r} is {how[0]}, but was selected {how[1]}; take the local part of the selection by "
            "selection.local(model.named_parameters()) once the model is sharded"
        )
    shape, selected = list(local(parameter).shape), list(selection.shape[name])
    if shape != selected:
        raise ValueError(f"{name!r} has shape {shape}, but was selected as {selected}")


def check_parameter(selection: Selection, name: str, parameter: Tensor) -> None:
    """Raise ValueError unless an optimiser can take the parameter."""
    if name not in selection:
        raise ValueError(f"{name!r} is not in the selection; make an optimiser with a selection that names it")
    check_shape(selection, name, parameter)
    if not parameter.is_contiguous():
        raise ValueError(f"{name!r} is not contiguous; make it so with `parameter.data = parameter.data.contiguous()`")
    if parameter.dtype not in FLOATING:
        raise ValueError(f"{name!r} is {parameter.dtype}, expected float32, bfloat16 or float16")
    if parameter.is_inference():
        raise ValueError(
            f"{name!r} was made under torch.inference_mode(), so it cannot be tuned; make the model outside"
        )


def check_one_device(pairs: list[tuple[str, Tensor]]) -> None:
    """Raise ValueError where a group has parameters on several devices."""
    for name, parameter in pairs:
        if parameter.device != pairs[0][1].device:
            raise ValueError(
                f"{name!r} is on {parameter.device}, but {pairs[0][0]!r} of the same group is on {pairs[0][1].device}; "
                "make a parameter group for each device"
            )


def check_sizes(selection: Selection, names: list[str], parameters: list[Tensor]) -> None:
    """Raise RuntimeError if a parameter does not have as many entries any more as when it was selected."""
    numel = selection.total_numels
    if list(map(Tensor.numel, parameters)) != [numel[name] for name in names]:
        name, now = next((n, p.numel()) for n, p in zip(names, parameters, strict=True) if p.numel() != numel[n])
        raise RuntimeError(
            f"{name!r} has {now} entries, but was selected with {numel[name]}; select anew, and make the optimiser "
            "anew, when a parameter has got another shape"
        )


def check_complete(selection: Selection, names: Iterable[str]) -> None:
    """Raise ValueError unless something is selected, and every selected tensor is among the names."""
    if not selection:
        raise ValueError("the selection names no tensor, so there is nothing to tune")
    if missing := [name for name in selection if name not in set(names)]:
        raise ValueError(
            f"the selection names {missing[0]!r}, which is not among the parameters given; to tune a part of it, "
            "give selection.subset(pattern)"
        )
