"""What the plain-PyTorch fallback checks of arguments: all that would give other values, or end a call half done."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OptionalTensorList = Sequence[Tensor | None]

MOST_ENTRIES = 2**31 - 1  # an index is int32
LONGEST_LIST = 2**31  # of all parts of a selection list together
PIECE = 2048  # positions of a selection list that share one offset into a packed vector
LARGEST_INT64 = 2**63 - 1


class Checker:
    """The checks of one call: every tensor on one device, and no memory that is written shared with another tensor."""

    def __init__(self, op: str, device: torch.device | None = None) -> None:
        self.op = op
        self.device = device
        self.spans: list[tuple[int, int, bool, str]] = []  # begin, end, written, name

    def require(self, condition: bool, message: str) -> None:
        """Raise RuntimeError unless the condition holds."""
        if not condition:
            raise RuntimeError(f"{self.op}: {message}")

    def within(self, name: str, value: int, most: int) -> None:
        """Require a number from 0 to ``most``."""
        self.require(0 <= value <= most, f"{name} is {value}, expected 0 to {most}")

    def lengths(self, like: str, expected: int, optional: dict[str, Sequence] | None = None, **lists: Sequence) -> None:
        """Require lists as long as another; an optional one may be empty."""
        for name, values in {**lists, **{name: values for name, values in (optional or {}).items() if values}}.items():
            self.require(len(values) == expected, f"{name} has {len(values)} tensors, but {like} has {expected}")

    def tensor(
        self,
        name: str,
        tensor: Tensor | None,
        *dtypes: torch.dtype,
        written: bool = False,
        shape: Sequence[int] | None = None,
        size: int | None = None,
    ) -> None:
        """Require device, layout, dtype and, where given, shape or number of entries of a tensor, if there is one."""
        if tensor is None:
            return
        same = tensor.device == self.device
        self.require(same, f"{name} is on {tensor.device}, expected {self.device} like the rest")
        self.require(tensor.is_contiguous(), f"{name} is not contiguous; pass a contiguous tensor")
        expected = " or ".join(str(dtype) for dtype in dtypes)
        self.require(tensor.dtype in dtypes, f"{name} has dtype {tensor.dtype}, expected {expected}")
        if shape is not None:
            same = tensor.shape == shape
            self.require(same, f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        self.require(size in (None, tensor.numel()), f"{name} has {tensor.numel()} entries, expected {size}")
        if tensor.numel():
            begin = tensor.data_ptr()
            self.require(begin != 0, f"{name} has {tensor.numel()} entries but no memory: its storage was freed")
            self.spans.append((begin, begin + tensor.numel() * tensor.element_size(), written, name))

    def no_overlap(self) -> None:
        """Require that no tensor that is written shares memory with another."""
        end, written_end = (0, ""), (0, "")  # the furthest of all spans so far, and of those that are written
        for begin, stop, written, name in sorted(self.spans):
            other_end, other = end if written else written_end
            self.require(begin >= other_end, f"{other} and {name} share memory, and one of them is written")
            end = max(end, (stop, name))
            if written:
                written_end = max(written_end, (stop, name))

    def draw(self, threshold: int, seed: int, step: int) -> None:
        """Require what the keep rule draws by in all tensors alike."""
        self.within("threshold", threshold, 65536)
        self.within("seed", seed, LARGEST_INT64)
        self.within("step", step, LARGEST_INT64)

    def listed(self, selected: int, first_name: str, first: int, ordinal_name: str, ordinal: int) -> None:
        """Require the ordinal of one tensor, and where its part of the selection list begins."""
        self.within(ordinal_name, ordinal, 2**32 - 1)
        self.within(first_name, first, LONGEST_LIST - selected)

    def selection(
        self,
        t: int,
        size: int,
        index: OptionalTensorList,
        scale_code: OptionalTensorList,
        first: Sequence[int],
        ordinal: Sequence[int],
    ) -> None:
        """Require the index, codes, first position and ordinal of one tensor."""
        self.require(size <= MOST_ENTRIES, f"tensor {t} has {size} entries, at most {MOST_ENTRIES} are supported")
        entries = index[t]
        selected = selected_entries(size, entries)
        self.entries(f"index[{t}]", entries, size)
        if scale_code:
            self.tensor(f"scale_code[{t}]", scale_code[t], torch.uint8, size=selected)
        self.listed(selected, f"first[{t}]", first[t] if first else 0, f"ordinal[{t}]", ordinal[t])

    def entries(self, name: str, index: Tensor | None, size: int) -> None:
        """Require an index of at most ``size`` entries, whose ends lie in a tensor of that size."""
        self.tensor(name, index, torch.int32)
        if index is None or not index.numel():
            return
        more = f"{name} has {index.numel()} entries, more than the tensor it points into, {size}"
        self.require(index.numel() <= size, more)
        # An index ascends, so its ends tell whether it still fits a tensor that may have changed since it was made.
        for position in index.flatten()[[0, -1]].tolist():
            within = f"expected ascending positions from 0 to {size - 1} in its tensor of {size} entries"
            self.require(0 <= position < size, f"{name} holds {position}, {within}")

    def ascending(self, name: str, index: Tensor | None) -> None:
        """Require that an index ascends strictly."""
        ascends = index is None or bool((index.flatten().diff() > 0).all())
        self.require(ascends, f"{name} is not strictly ascending; sort it and drop repeated positions")

    def scalars(
        self, scale_code: OptionalTensorList, table: Tensor | None, step: Tensor, **scalars: Tensor | None
    ) -> None:
        """Require the values that all tensors share."""
        self.tensor("step", step, torch.int64, size=1)
        for name, scalar in scalars.items():
            self.tensor(name, scalar, torch.float32, size=1)
        if any(code is not None for code in scale_code):
            self.require(table is not None, "scale_code is given, but table, which turns a code into a factor, is None")
            self.tensor("table", table, torch.float32, size=256)


def selected_entries(size: int, index: Tensor | None) -> int:
    """Return how many entries of a tensor are selected."""
    return size if index is None else index.numel()


def piece_count(count: Sequence[int], first: Sequence[int]) -> int:
    """Return how many pieces lists of ``count`` entries have, cut where global positions are multiples of `PIECE`."""
    begins = first or [0] * len(count)
    return sum(-(-(begin + n) // PIECE) - begin // PIECE for n, begin in zip(count, begins, strict=True) if n)
