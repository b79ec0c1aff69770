"""The ops' argument checks for the plain-PyTorch fallback: the same errors as csrc/arguments/, before any change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TensorList = Sequence[Tensor]
OptionalTensorList = Sequence[Tensor | None]

FLOATING = (torch.float32, torch.bfloat16, torch.float16)
MOST_ENTRIES = 2**31 - 1  # an index is int32
LONGEST_LIST = 2**31  # of all parts of a selection list together
PIECE = 2048  # positions of a selection list that share one place in a packed vector


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
        # Of a list, or packed from one; values that all tensors share are read before anything else.
        if tensor.numel() and ("[" in name or name == "packed"):
            begin = tensor.data_ptr()
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
        if code is not None:
            self.tensor(f"scale_code[{t}]", code, (torch.uint8,), size=selected)
        self.listed(t, selected, first, ordinal)
        return selected

    def listed(self, t: int, selected: int, first: Sequence[int], ordinal: Sequence[int]) -> None:
        """The ordinal of one tensor, and where its part of the selection list begins."""
        self.require(0 <= ordinal[t] < 2**32, f"ordinal[{t}] is {ordinal[t]}, expected 0 to 4294967295")
        last = LONGEST_LIST - selected
        if first:
            expected = f"expected 0 to {last}, so that its {selected} entries end within {LONGEST_LIST}"
            self.require(0 <= first[t] <= last, f"first[{t}] is {first[t]}, {expected}")

    def packed(
        self, packed: Tensor, places: Tensor, count: Sequence[int], first: Sequence[int], written: bool = False
    ) -> None:
        """A packed vector and the places of its pieces, which belong to lists of ``count`` selected entries."""
        self.tensor("packed", packed, (torch.float32, torch.bfloat16), written)
        self.tensor("places", places, (torch.int64,))
        pieces = piece_count(count, first)
        self.require(
            places.numel() == pieces + 1,
            f"places has {places.numel()} entries, expected {pieces + 1}, "
            f"one for each piece of {PIECE} positions and one for the end",
        )

    def places(self, packed: Tensor, places: Tensor, made: Tensor) -> None:
        """The places are those of this draw, which ``made`` holds."""
        end, length = int(places[-1]), packed.numel()
        self.require(end == length, f"places end at {end}, but packed has {length} entries")
        same = torch.equal(places.cpu(), made)
        self.require(
            same, "places do not fit what this step keeps; make them by ops.places for the same lists and step"
        )

    def threshold(self, threshold: int) -> None:
        """The keep rule's integer."""
        self.require(0 <= threshold <= 65536, f"threshold is {threshold}, expected 0 to 65536")

    def draw(self, scale_code: OptionalTensorList, table: Tensor | None, threshold: int, step: Tensor) -> None:
        """What all tensors' draws share."""
        self.tensor("step", step, (torch.int64,), size=1)
        self.threshold(threshold)
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


def check_accumulate(score: TensorList, grad: TensorList, frozen: OptionalTensorList) -> None:
    """Check the arguments of `ops.accumulate_`."""
    checker = Checker("accumulate_", score[0])
    checker.length("grad", grad, "score", score)
    checker.length("frozen", frozen, "score", score)
    for t, (total, gradient, bits) in enumerate(zip(score, grad, frozen, strict=True)):
        checker.tensor(f"score[{t}]", total, (torch.float32,), written=True)
        checker.tensor(f"grad[{t}]", gradient, FLOATING)
        checker.alike(f"grad[{t}]", gradient, f"score[{t}]", total, dtype=False)
        if bits is not None:
            checker.tensor(f"frozen[{t}]", bits, (torch.uint8,), size=(total.numel() + 7) // 8)
    checker.no_overlap()


def check_select(score: TensorList, k: Sequence[int]) -> None:
    """Check the arguments of `ops.select`."""
    checker = Checker("select", score[0])
    checker.length("k", k, "score", score)
    for t, (scores, count) in enumerate(zip(score, k, strict=True)):
        checker.tensor(f"score[{t}]", scores, (torch.float32,))
        size = scores.numel()
        checker.require(0 <= count <= size, f"k[{t}] is {count}, expected 0 to {size}, the size of score[{t}]")
    for t, scores in enumerate(score):
        if nan := scores.isnan().flatten().nonzero().flatten().tolist():
            message = f"score[{t}] is NaN at entry {nan[0]}; scores must be numbers to be ranked"
            raise RuntimeError(f"select: {message}")


@dataclass
class DropApply:
    """The arguments that `ops.drop_apply_sgd_` and `ops.drop_apply_adamw_` share."""

    param: TensorList
    grad: TensorList
    index: OptionalTensorList
    master: TensorList
    scale_code: OptionalTensorList
    table: Tensor | None
    ordinal: Sequence[int]
    lr: Tensor
    threshold: int
    seed: int
    step: Tensor
    found_inf: Tensor | None
    grad_scale: Tensor | None
    first: Sequence[int]
    packed: Tensor | None
    places: Tensor | None


def _check_drop_apply(checker: Checker, given: DropApply, state: dict[str, tuple[TensorList, torch.dtype]]) -> None:
    """``state`` names the rule's own lists, of one value a selected entry, and their dtypes."""
    param = given.param
    one, other = ("packed", "places") if given.packed is not None else ("places", "packed")
    together = (given.packed is None) == (given.places is None)
    checker.require(together, f"{one} is given, but {other} is None; give both or neither")
    if given.packed is None:
        checker.length("grad", given.grad, "param", param)
    else:
        full = f"packed is given, but grad has {len(given.grad)} tensors; give an empty list"
        checker.require(not given.grad, full)
    lists: dict[str, Sequence] = {"index": given.index, "ordinal": given.ordinal}
    lists |= {name: values for name, (values, _) in state.items()}
    absent_where_empty = {"master": given.master, "scale_code": given.scale_code, "first": given.first}
    lists |= {name: values for name, values in absent_where_empty.items() if values}
    for name, values in lists.items():
        checker.length(name, values, "param", param)
    count = []
    for t, tensor in enumerate(param):
        checker.tensor(f"param[{t}]", tensor, FLOATING, written=True)
        if given.packed is None:
            gradient = given.grad[t]
            checker.tensor(f"grad[{t}]", gradient, (*FLOATING, gradient.dtype))
            checker.alike(f"grad[{t}]", gradient, f"param[{t}]", tensor, dtype=True)
        selected = checker.selection(t, tensor.numel(), given.index, given.scale_code, given.first, given.ordinal)
        count.append(selected)
        for name, (values, dtype) in state.items():
            checker.tensor(f"{name}[{t}]", values[t], (dtype,), written=True, size=selected)
        if tensor.dtype != torch.float32:
            needed = f"param[{t}] has dtype {tensor.dtype}, which needs a compact float32 master, but master is empty"
            checker.require(bool(given.master), needed)
        if given.master:
            size = 0 if tensor.dtype == torch.float32 else selected
            checker.tensor(f"master[{t}]", given.master[t], (torch.float32,), written=True, size=size)
    checker.draw(given.scale_code, given.table, given.threshold, given.step)
    for name, scalar in {"lr": given.lr, "found_inf": given.found_inf, "grad_scale": given.grad_scale}.items():
        if scalar is not None:
            checker.tensor(name, scalar, (torch.float32,), size=1)
    if given.packed is not None and given.places is not None:
        checker.packed(given.packed, given.places, count, given.first)
    checker.no_overlap()


def check_drop_apply_sgd(given: DropApply, momentum_buffer: TensorList, momentum: float) -> None:
    """Check the arguments of `ops.drop_apply_sgd_`."""
    needed = momentum or momentum_buffer
    state = {"momentum_buffer": (momentum_buffer, torch.float32)} if needed else {}
    _check_drop_apply(Checker("drop_apply_sgd_", given.param[0]), given, state)


def check_drop_apply_adamw(
    given: DropApply, exp_avg: TensorList, exp_avg_sq: TensorList, updates: TensorList, correction: Tensor
) -> None:
    """Check the arguments of `ops.drop_apply_adamw_`."""
    checker = Checker("drop_apply_adamw_", given.param[0])
    averages = {"exp_avg": (exp_avg, torch.float32), "exp_avg_sq": (exp_avg_sq, torch.float32)}
    _check_drop_apply(checker, given, averages | {"updates": (updates, torch.int32)})
    checker.tensor("correction", correction, (torch.float32,))
    shape = list(correction.shape)
    right = len(shape) == 2 and shape[0] == 2 and shape[1] > 0
    checker.require(right, f"correction has shape {shape}, expected [2, n] with n of at least 1")


def check_mask(
    grad: TensorList,
    index: OptionalTensorList,
    scale_code: OptionalTensorList,
    table: Tensor | None,
    ordinal: Sequence[int],
    threshold: int,
    step: Tensor,
    first: Sequence[int],
) -> None:
    """Check the arguments of `ops.mask_`."""
    checker = Checker("mask_", grad[0])
    lists: dict[str, Sequence] = {"index": index, "ordinal": ordinal}
    absent_where_empty: dict[str, Sequence] = {"scale_code": scale_code, "first": first}
    lists |= {name: values for name, values in absent_where_empty.items() if values}
    for name, values in lists.items():
        checker.length(name, values, "grad", grad)
    for t, gradient in enumerate(grad):
        checker.tensor(f"grad[{t}]", gradient, FLOATING, written=True)
        checker.selection(t, gradient.numel(), index, scale_code, first, ordinal)
    checker.draw(scale_code, table, threshold, step)
    checker.no_overlap()


def check_places(count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int) -> None:
    """Check the arguments of `ops.places`."""
    checker = Checker("places", torch.empty(0))
    for name, values in {"ordinal": ordinal, **({"first": first} if first else {})}.items():
        checker.require(len(values) == len(count), f"{name} has {len(values)} entries, but count has {len(count)}")
    for t, selected in enumerate(count):
        checker.require(0 <= selected <= LONGEST_LIST, f"count[{t}] is {selected}, expected 0 to {LONGEST_LIST}")
        checker.listed(t, selected, first, ordinal)
    checker.threshold(threshold)


def check_pack(
    packed: Tensor,
    grad: TensorList,
    index: OptionalTensorList,
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    threshold: int,
    step: Tensor,
) -> None:
    """Check the arguments of `ops.pack_`."""
    checker = Checker("pack_", grad[0] if grad else packed)
    lists: dict[str, Sequence] = {"index": index, "ordinal": ordinal, **({"first": first} if first else {})}
    for name, values in lists.items():
        checker.length(name, values, "grad", grad)
    count = []
    for t, gradient in enumerate(grad):
        checker.tensor(f"grad[{t}]", gradient, FLOATING)
        count.append(checker.selection(t, gradient.numel(), index, [], first, ordinal))
    checker.draw([], None, threshold, step)
    checker.packed(packed, places, count, first, written=True)
    checker.no_overlap()
