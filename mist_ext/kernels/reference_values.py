"""The ops on values as they are, in plain PyTorch: their definition, the oracle of the compiled ones, the fallback."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.kernels.checker import MOST_ENTRIES, Checker, OptionalTensorList, selected_entries

ESCAPE = 255
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers as wide as an entry


@torch.no_grad()
def write_values_(
    param: Sequence[Tensor],
    index: OptionalTensorList,
    value: Sequence[Tensor],
    expected: Sequence[Tensor] = (),
    then_index: OptionalTensorList = (),
    then_value: Sequence[Tensor] = (),
    then_expected: Sequence[Tensor] = (),
) -> None:
    stages = {"": (index, value, expected)}
    if then_index or then_value or then_expected:
        stages["then_"] = (then_index, then_value, then_expected)
    _check(param, stages)
    made = []
    for t, tensor in enumerate(param):
        kind = BITS[tensor.element_size()]
        entries = tensor.view(-1).view(kind).clone()
        for prefix, (places, values, wanted) in stages.items():
            at = _positions(len(entries), places[t], tensor.device)
            if wanted:
                differs = (entries[at] != wanted[t].view(-1).view(kind)).nonzero()
                Checker("write_values_").require(
                    not len(differs),
                    f"param[{t}] has other bits at position {at[differs[:1]].sum()} than {prefix}expected[{t}]; "
                    "nothing was written",
                )
            entries[at] = values[t].view(-1).view(kind)
        made.append(entries)
    for tensor, entries in zip(param, made, strict=True):
        tensor.view(-1).view(entries.dtype).copy_(entries)


def _positions(size: int, index: Tensor | None, device: torch.device) -> Tensor:
    return torch.arange(size, device=device) if index is None else index.view(-1).long()


def _check(
    param: Sequence[Tensor], stages: dict[str, tuple[OptionalTensorList, Sequence[Tensor], Sequence[Tensor]]]
) -> None:
    """Check the arguments of `value_ops.write_values_`."""
    checker, count = Checker("write_values_", param[0].device), len(param)
    first, *then = stages.items()
    for prefix, (index, value, expected) in (first, *then):
        checker.lengths("param", count, None, **{f"{prefix}index": index, f"{prefix}value": value})
        if prefix:
            checker.lengths("expected", len(first[1][2]), then_expected=expected)
        else:
            checker.lengths("param", count, {"expected": expected})
    for t, tensor in enumerate(param):
        checker.tensor(f"param[{t}]", tensor, tensor.dtype, written=True)
        width, size = tensor.element_size(), tensor.numel()
        checker.require(width in BITS, f"param[{t}] has entries of {width} bytes, expected 1, 2, 4 or 8")
        checker.require(size <= MOST_ENTRIES, f"param[{t}] has {size} entries, at most {MOST_ENTRIES} are supported")
        for prefix, (index, value, expected) in stages.items():
            checker.entries(f"{prefix}index[{t}]", index[t], size)
            selected = selected_entries(size, index[t])
            checker.tensor(f"{prefix}value[{t}]", value[t], tensor.dtype, size=selected)
            if expected:
                checker.tensor(f"{prefix}expected[{t}]", expected[t], tensor.dtype, size=selected)
    checker.no_overlap()
    for prefix, (index, _, _) in stages.items():
        for t, entries in enumerate(index):
            checker.ascending(f"{prefix}index[{t}]", entries)


def encode_gaps(index: Sequence[Tensor]) -> list[Tensor]:
    checker = Checker("encode_gaps", index[0].device)
    for t, entries in enumerate(index):
        checker.tensor(f"index[{t}]", entries, torch.int32)
    codes = []
    for t, entries in enumerate(index):
        gaps = torch.diff(entries.view(-1).long(), prepend=torch.tensor([-1])) - 1
        ascends = bool((gaps >= 0).all())
        checker.require(ascends, f"index[{t}] is not strictly ascending; sort it and drop repeated positions")
        wide = gaps[gaps >= ESCAPE].view(-1, 1) >> torch.tensor([0, 8, 16, 24]) & 255
        codes.append(torch.cat([gaps.clamp(max=ESCAPE), wide.flatten()]).to(torch.uint8))
    return codes


def decode_gaps(code: Sequence[Tensor], count: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    checker = Checker("decode_gaps", code[0].device if code else None)
    checker.lengths("code", len(code), count=count, size=size)
    for t, given in enumerate(code):
        checker.tensor(f"code[{t}]", given, torch.uint8)
        checker.within(f"size[{t}]", size[t], MOST_ENTRIES)
        checker.within(f"count[{t}]", count[t], size[t])
        few = f"code[{t}] has {given.numel()} bytes, too few for {count[t]} positions"
        checker.require(count[t] <= given.numel(), few)
    decoded = []
    for t, given in enumerate(code):
        values = given.view(-1).long()
        gaps, rest = values[: count[t]], values[count[t] :]
        escaped = (gaps == ESCAPE).nonzero().flatten()
        length = f"code[{t}] is not as long as {count[t]} positions and the gaps that it escapes take"
        checker.require(len(rest) == 4 * len(escaped), length)
        wide = (rest.view(-1, 4) << torch.tensor([0, 8, 16, 24])).sum(dim=1)
        positions = gaps.index_put((escaped,), wide).add(1).cumsum(0) - 1
        # In the order of the code, whatever is wrong first.
        small, beyond = (wide < ESCAPE).tolist(), (positions[escaped] >= size[t]).tolist()
        for short, far in zip(small, beyond, strict=True):
            checker.require(not short, f"code[{t}] escapes a gap that has room in a byte")
            checker.require(not far, f"code[{t}] holds a position beyond {size[t] - 1}, the last of its tensor")
        outside = count[t] > 0 and int(positions[-1]) >= size[t]
        checker.require(not outside, f"code[{t}] holds a position beyond {size[t] - 1}, the last of its tensor")
        decoded.append(positions.int())
    return decoded
