"""The ops on values as they are, of any dtype: entries replaced by position, and positions as the gaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mist_ext.kernels import compiled, reference
from mist_ext.kernels.implementation import implementation
from mist_ext.kernels.in_place import write


def write_values_(
    param: Sequence[Tensor],
    index: Sequence[Tensor | None],
    value: Sequence[Tensor],
    expected: Sequence[Tensor] = (),
    then_index: Sequence[Tensor | None] = (),
    then_value: Sequence[Tensor] = (),
    then_expected: Sequence[Tensor] = (),
) -> None:
    """Replace entries of tensors by their positions, bit for bit; if asked to, only where the expected bits are found.

    The ``then_`` lists are a second replacement, as by a second call, in the same pass over memory. Where something
    else than expected is found in any tensor, nothing is changed.

    Parameters
    ----------
    param : sequence of Tensor
        Of any dtype of 1, 2, 4 or 8 bytes.
    index, then_index : sequence of Tensor or None
        int32, ascending flat positions; None where all entries are replaced. On a GPU the order is checked where
        values are expected.
    value, then_value : sequence of Tensor
        Of the param's dtype, one value for each position.
    expected, then_expected : sequence of Tensor, optional
        The same, what must be there before, as bits: a NaN equals itself, 0 does not equal -0. Both lists, or none.

    Raises
    ------
    RuntimeError
        If an entry has other bits than expected; the message has the tensor's number and the position.
    """
    if param or index or value:
        replace = implementation("write_values_", param=param, index=index, value=value)
        arguments = (param, index, value, expected, then_index, then_value, then_expected)
        write("write_values_", replace, *map(list, arguments), param=param)


def encode_gaps(index: Sequence[Tensor]) -> list[Tensor]:
    """Return ascending positions as the gaps between them: about one byte for each.

    A position's gap counts the positions between it and the one before; that of the first, those before it. A code has
    one byte for each position, its gap, or 255 where that is 255 or more. Behind all of them stand the gaps of 255 and
    more, in order, in four bytes each, least significant first.

    Parameters
    ----------
    index : sequence of Tensor
        int32, strictly ascending from 0 or more, on the CPU.

    Returns
    -------
    list of Tensor
        uint8 ``[count + 4 escapes]`` each.

    Raises
    ------
    RuntimeError
        If an index does not ascend.
    """
    return list(_host("encode_gaps", index=index).encode_gaps(index)) if index else []


def decode_gaps(code: Sequence[Tensor], count: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    """Return the positions of codes of any origin, as `encode_gaps` took them.

    Parameters
    ----------
    code : sequence of Tensor
        uint8, on the CPU.
    count : sequence of int
        The number of positions of each.
    size : sequence of int
        The number of entries of each tensor, below which its positions lie.

    Returns
    -------
    list of Tensor
        int32 ``[count]`` each, ascending.

    Raises
    ------
    RuntimeError
        If a code is not that of ``count`` positions below ``size``; the message has its number.
    """
    return list(_host("decode_gaps", code=code).decode_gaps(code, count, size)) if code or count or size else []


def _host(op: str, **lists: Sequence[Tensor]) -> Any:
    """Return what has the op, which works on the host alone; RuntimeError for a tensor on another device."""
    ((name, tensors),) = lists.items()
    for i, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
            raise RuntimeError(f"{op}: {name}[{i}] is on {tensor.device}, expected cpu")
    return torch.ops.mist_ext if tensors and compiled.available(torch.device("cpu")) else reference
