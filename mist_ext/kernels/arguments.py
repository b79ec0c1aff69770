"""The ops' argument checks for the plain-PyTorch fallback: the same errors as csrc/arguments/, before any change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.kernels.checker import LONGEST_LIST, Checker, OptionalTensorList

TensorList = Sequence[Tensor]

FLOATING = (torch.float32, torch.bfloat16, torch.float16)


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
    scalars = {"lr": given.lr, "found_inf": given.found_inf, "grad_scale": given.grad_scale}
    checker.scalars(given.scale_code, given.table, given.step, **scalars)
    checker.draw(given.threshold, given.seed)
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
                checker.tensor(f"master[{t}]", given.master[t], (torch.float32,), written=True, size=selected)
        elif given.master:
            size = given.master[t].numel()
            none = f"master[{t}] has {size} entries, expected 0, since a float32 parameter has no master"
            checker.require(size == 0, none)
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
    checker.tensor("correction", correction, (torch.float32,))
    shape = list(correction.shape)
    right = len(shape) == 2 and shape[0] == 2 and shape[1] > 0
    checker.require(right, f"correction has shape {shape}, expected [2, n] with n of at least 1")
    averages = {"exp_avg": (exp_avg, torch.float32), "exp_avg_sq": (exp_avg_sq, torch.float32)}
    _check_drop_apply(checker, given, averages | {"updates": (updates, torch.int32)})


def check_mask(
    grad: TensorList,
    index: OptionalTensorList,
    scale_code: OptionalTensorList,
    table: Tensor | None,
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
    first: Sequence[int],
) -> None:
    """Check the arguments of `ops.mask_`."""
    checker = Checker("mask_", grad[0])
    checker.scalars(scale_code, table, step)
    checker.draw(threshold, seed)
    lists: dict[str, Sequence] = {"index": index, "ordinal": ordinal}
    absent_where_empty: dict[str, Sequence] = {"scale_code": scale_code, "first": first}
    lists |= {name: values for name, values in absent_where_empty.items() if values}
    for name, values in lists.items():
        checker.length(name, values, "grad", grad)
    for t, gradient in enumerate(grad):
        checker.tensor(f"grad[{t}]", gradient, FLOATING, written=True)
        checker.selection(t, gradient.numel(), index, scale_code, first, ordinal)
        if (entries := index[t]) is not None:
            ascending = bool((entries.flatten().diff() > 0).all())
            checker.require(ascending, f"index[{t}] is not strictly ascending; sort it and drop repeated positions")
    checker.no_overlap()


def check_keep_mask(seed: int, ordinal: int, step: int, n: int, threshold: int, first: int) -> None:
    """Check the arguments of `ops.keep_mask`."""
    checker = Checker("keep_mask", torch.empty(0))
    checker.require(0 <= n <= LONGEST_LIST, f"n is {n}, expected 0 to {LONGEST_LIST}")
    checker.listed(n, "first", first, "ordinal", ordinal)
    checker.step(step)
    checker.draw(threshold, seed)


def check_places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> None:
    """Check the arguments of `ops.places`."""
    checker = Checker("places", torch.empty(0))
    checker.step(step)
    checker.draw(threshold, seed)
    for name, values in {"ordinal": ordinal, **({"first": first} if first else {})}.items():
        checker.require(len(values) == len(count), f"{name} has {len(values)} entries, but count has {len(count)}")
    for t, selected in enumerate(count):
        checker.require(0 <= selected <= LONGEST_LIST, f"count[{t}] is {selected}, expected 0 to {LONGEST_LIST}")
        checker.listed(selected, f"first[{t}]", first[t] if first else 0, f"ordinal[{t}]", ordinal[t])
    checker.pieces(count, first)


def check_pack(
    packed: Tensor,
    grad: TensorList,
    index: OptionalTensorList,
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    """Check the arguments of `ops.pack_`."""
    checker = Checker("pack_", grad[0] if grad else packed)
    checker.scalars([], None, step)
    checker.draw(threshold, seed)
    lists: dict[str, Sequence] = {"index": index, "ordinal": ordinal, **({"first": first} if first else {})}
    for name, values in lists.items():
        checker.length(name, values, "grad", grad)
    count = []
    for t, gradient in enumerate(grad):
        checker.tensor(f"grad[{t}]", gradient, FLOATING)
        count.append(checker.selection(t, gradient.numel(), index, [], first, ordinal))
    checker.packed(packed, places, count, first, written=True)
    checker.no_overlap()
