"""What every op checks of its arguments in the plain-PyTorch fallback, with the errors of csrc/arguments/."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OptionalTensorList = Sequence[Tensor | None]

MOST_ENTRIES = 2**31 - 1  # an index is int32
LONGEST_LIST = 2**31  # of all parts of a selection list together
PIECE = 2048  # positions of a selection list that share one place in a packed vector
MOST_PIECES = 2**32 - 1


class Checker:
    """The checks of one call: every tensor on one device, and no memory that is written shared with another tensor."""

    def __init__(self, op: str, first: Tensor) -> None:
        self.op = op
        self.device = first.device
        self.spans: list[tuple[int, int, bool, str]] = []  # begin, end, written, name

    def require(self, condition: bool, message: str) -> None:
        """Raise RuntimeError unless the condition holds."""
        if not condition:
            raise RuntimeError(f"{self.op}: {message}")

    def length(self, name: str, values: Sequence, like: str, expected: Sequence) -> None:
        """Two lists belong together."""
        self.require(len(values) == len(expected), f"{name} has {len(values)} tensors, but {like} has {len(expected)}")

    def tensor(
        self, name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], written: bool = False, size: int | None = None
    ) -> None:
        """Device, layout, dtype and, where given, the number of entries."""
        self.require(
            tensor.device == self.device, f"{name} is on {tensor.device}, expected {self.device} like the rest"
        )
        self.require(tensor.is_contiguous(), f"{name} is not contiguous; pass a contiguous tensor")
        expected = " or ".join(str(dtype) for dtype in dtypes)
        self.require(tensor.dtype in dtypes, f"{name} has dtype {tensor.dtype}, expected {expected}")
        self.require(size in (None, tensor.numel()), f"{name} has {tensor.numel()} entries, expected {size}")
        if tensor.numel():
            begin = tensor.data_ptr()
            self.require(begin != 0, f"{name} has {tensor.numel()} entries but no memory: its storage was freed")
            self.spans.append((begin, begin + tensor.numel() * tensor.element_size(), written, name))

    def alike(self, name: str, tensor: Tensor, like: str, other: Tensor, dtype: bool) -> None:
        """Two tensors have one shape and, if asked for, one dtype."""
        ours, theirs = list(tensor.shape), list(other.shape)
        self.require(ours == theirs, f"{name} has shape {ours}, but {like} has {theirs}")
        if dtype:
            same = tensor.dtype == other.dtype
            self.require(same, f"{name} has dtype {tensor.dtype}, but {like} has {other.dtype}")

    def no_overlap(self) -> None:
        """No tensor that is written shares memory with another."""
        end, written_end = (0, ""), (0, "")  # the furthest of all spans so far, and of those that are written
        for begin, stop, written, name in sorted(self.spans):
            other_end, other = end if written else written_end
            self.require(begin >= other_end, f"{other} and {name} share memory, and one of them is written")
            end = max(end, (stop, name))
            if written:
                written_end = max(written_end, (stop, name))

    def selection(
        self,
        t: int,
        size: int,
        index: OptionalTensorList,
        scale_code: OptionalTensorList,
        first: Sequence[int],
        ordinal: Sequence[int],
    ) -> int:
        """The index, codes, first position and ordinal of one tensor; returns how many entries are selected."""
        self.require(size <= MOST_ENTRIES, f"tensor {t} has {size} entries, at most {MOST_ENTRIES} are supported")
        entries, code, selected = index[t], scale_code[t] if scale_code else None, size
        if entries is not None:
            self.tensor(f"index[{t}]", entries, (torch.int32,))
            selected = entries.numel()
            more = f"index[{t}] has {selected} entries, more than the tensor it points into, {size}"
            self.require(selected <= size, more)
            # An index ascends, so its ends tell whether it still fits a tensor that may have changed since it was made.
            for position in entries.flatten()[[0, -1]].tolist() if selected else []:
                within = f"expected ascending positions from 0 to {size - 1} in its tensor of {size} entries"
                self.require(0 <= position < size, f"index[{t}] holds {position}, {within}")
        if code is not None:
            self.tensor(f"scale_code[{t}]", code, (torch.uint8,), size=selected)
        self.listed(selected, f"first[{t}]", first[t] if first else 0, f"ordinal[{t}]", ordinal[t])
        return selected

    def listed(self, selected: int, first_name: str, first: int, ordinal_name: str, ordinal: int) -> None:
        """The ordinal of one tensor, and where its part of the selection list begins."""
        self.require(0 <= ordinal < 2**32, f"{ordinal_name} is {ordinal}, expected 0 to 4294967295")
        last = LONGEST_LIST - selected
        expected = f"expected 0 to {last}, so that its {selected} entries end within {LONGEST_LIST}"
        self.require(0 <= first <= last, f"{first_name} is {first}, {expected}")

    def packed(
        self, packed: Tensor, places: Tensor, count: Sequence[int], first: Sequence[int], written: bool = False
    ) -> None:
        """A packed vector and the places of its pieces, which belong to lists of ``count`` selected entries."""
        self.tensor("packed", packed, (torch.float32, torch.bfloat16), written)
        self.tensor("places", places, (torch.int64,))
        pieces = self.pieces(count, first)
        self.require(
            places.numel() == pieces + 1,
            f"places has {places.numel()} entries, expected {pieces + 1}, "
            f"one for each piece of {PIECE} positions and one for the end",
        )

    def pieces(self, count: Sequence[int], first: Sequence[int]) -> int:
        """How many pieces lists of ``count`` entries have; each has a number of 32 bits."""
        pieces = piece_count(count, first)
        self.require(
            pieces <= MOST_PIECES,
            f"the lists have {pieces} or more pieces of {PIECE} positions, expected at most {MOST_PIECES}; "
            "call it for fewer of them at a time",
        )
        return pieces

    def places(self, packed: Tensor, places: Tensor, made: Tensor) -> None:
        """The places are those of this draw, which ``made`` holds."""
        places = places.flatten()
        end, length = int(places[-1]), packed.numel()
        self.require(end == length, f"places end at {end}, but packed has {length} entries")
        same = torch.equal(places.cpu(), made)
        self.require(
            same, "places do not fit what this step keeps; make them by ops.places for the same lists and step"
        )

    def draw(self, threshold: int, seed: int) -> None:
        """The keep rule's integer, and the seed."""
        self.require(0 <= threshold <= 65536, f"threshold is {threshold}, expected 0 to 65536")
        self.require(0 <= seed < 2**63, f"seed is {seed}, expected 0 to 2^63 - 1")

    def step(self, step: int) -> None:
        """The number of applied steps."""
        self.require(0 <= step < 2**63, f"step is {step}, expected 0 or more")

    def scalars(
        self, scale_code: OptionalTensorList, table: Tensor | None, step: Tensor, **scalars: Tensor | None
    ) -> None:
        """The values that all tensors share."""
        self.tensor("step", step, (torch.int64,), size=1)
        self.step(int(step))
        for name, scalar in scalars.items():
            if scalar is not None:
                self.tensor(name, scalar, (torch.float32,), size=1)
        if any(code is not None for code in scale_code):
            if table is None:
                raise RuntimeError(
                    f"{self.op}: scale_code is given, but table, which turns a code into a factor, is None"
                )
            self.tensor("table", table, (torch.float32,), size=256)


def piece_count(count: Sequence[int], first: Sequence[int]) -> int:
    """How many pieces lists of ``count`` entries have: they are cut where global positions are multiples of `PIECE`."""
    begins = first or [0] * len(count)
    return sum(-(-(begin + n) // PIECE) - begin // PIECE for n, begin in zip(count, begins, strict=True) if n)
