"""The ops on tensors without values, for `torch.compile`: they check devices and make outputs. And their FLOPs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mist_ext.kernels.checker import piece_count

IN_PLACE = (
    "accumulate_",
    "drop_apply_sgd_",
    "drop_apply_adamw_",
    "mask_",
    "pack_",
    "sampled_weight_grad_",
    "write_values_",
)


def register() -> None:
    """Register the fakes, and how torch counts FLOPs, once the schemas are known."""
    for name in IN_PLACE:  # they return nothing, so their fakes compute nothing
        torch.library.register_fake(f"mist_ext::{name}", functools.partial(_check_device, name))
    torch.library.register_fake("mist_ext::select", _select)
    torch.library.register_fake("mist_ext::places", _places)
    register_flop_formula(torch.ops.mist_ext.sampled_weight_grad_, get_raw=True)(_flops_of_sampled_weight_grad)
    torch.library.register_fake("mist_ext::encode_gaps", _encode_gaps)
    torch.library.register_fake("mist_ext::decode_gaps", _decode_gaps)


def _check_device(op: str, *arguments: Any) -> None:
    """Raise RuntimeError for tensors on several devices: one on meta brings a call here, past the kernels' check."""
    first: Tensor = next(value[0] for value in arguments if isinstance(value, list) and value)
    # Arguments that have their default values are left out.
    for declared, value in zip(getattr(torch.ops.mist_ext, op).default._schema.arguments, arguments, strict=False):
        for i, tensor in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(tensor, Tensor) and tensor.device != first.device:
                name = f"{declared.name}[{i}]" if isinstance(value, list) else declared.name
                raise RuntimeError(f"{op}: {name} is on {tensor.device}, expected {first.device} like the rest")


def _select(score: Sequence[Tensor], k: Sequence[int]) -> list[Tensor]:
    _check_device("select", score, k)
    return [scores.new_empty(count, dtype=torch.int32) for scores, count in zip(score, k, strict=True)]


def _places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> Tensor:
    return torch.empty(piece_count(count, first) + 1, dtype=torch.int64)


def _flops_of_sampled_weight_grad(
    packed: Tensor,
    grad_output: Sequence[Tensor],
    input: Sequence[Tensor],
    index: Sequence[Tensor | None],
    places: Tensor,
    first: Sequence[int],
    *_: Any,
    **_named: Any,
) -> int:
    """Return a product and a sum for each token of each kept entry."""
    counts = [
        out.shape[1] * into.shape[1] if entries is None else entries.numel()
        for out, into, entries in zip(grad_output, input, index, strict=True)
    ]
    begins = first or [0] * len(counts)
    ends = itertools.accumulate(piece_count([count], [begin]) for count, begin in zip(counts, begins, strict=True))
    kept = places[[0, *ends]].diff().tolist()
    return sum(2 * len(out) * entries for out, entries in zip(grad_output, kept, strict=True))


def _encode_gaps(index: Sequence[Tensor]) -> list[Tensor]:
    _check_device("encode_gaps", index)
    length = torch.library.get_ctx().new_dynamic_size  # which the gaps decide
    return [entries.new_empty(length(), dtype=torch.uint8) for entries in index]


def _decode_gaps(code: Sequence[Tensor], count: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    _check_device("decode_gaps", code, count, size)
    return [given.new_empty(positions, dtype=torch.int32) for given, positions in zip(code, count, strict=True)]
