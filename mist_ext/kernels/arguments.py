"""The checks of each op's arguments in the plain-PyTorch fallback, before any change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.kernels.checker import LONGEST_LIST, Checker, OptionalTensorList, piece_count, selected_entries

TensorList = Sequence[Tensor]

FLOATING = (torch.float32, torch.bfloat16, torch.float16)
PACKED = (torch.float32, torch.bfloat16)


def check_accumulate(score: TensorList, grad: TensorList, frozen: OptionalTensorList) -> None:
    """Check the arguments of `ops.accumulate_`."""
    checker = Checker("accumulate_", score[0].device)
    checker.lengths("score", len(score), grad=grad, frozen=frozen)
    for t, total in enumerate(score):
        checker.tensor(f"score[{t}]", total, torch.float32, written=True)
        checker.tensor(f"grad[{t}]", grad[t], *FLOATING, shape=total.shape)
        checker.tensor(f"frozen[{t}]", frozen[t], torch.uint8, size=(total.numel() + 7) // 8)
    checker.no_overlap()


def check_select(score: TensorList, k: Sequence[int]) -> None:
    """Check the arguments of `ops.select`."""
    checker = Checker("select", score[0].device)
    checker.lengths("score", len(score), k=k)
    for t, scores in enumerate(score):
        checker.tensor(f"score[{t}]", scores, torch.float32)
        checker.within(f"k[{t}]", k[t], scores.numel())
    for t, scores in enumerate(score):
        nan = scores.isnan().flatten().nonzero().flatten().tolist()
        checker.require(not nan, f"score[{t}] is NaN at entry {(*nan, 0)[0]}; scores must be numbers to be ranked")


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
    """Check what both rules have; ``state`` holds a rule's own lists and their dtypes, one value a selected entry."""
    scalars = {"lr": given.lr, "found_inf": given.found_inf, "grad_scale": given.grad_scale}
    checker.scalars(given.scale_code, given.table, given.step, **scalars)
    checker.draw(given.threshold, given.seed, int(given.step))
    one, other = ("packed", "places") if given.packed is not None else ("places", "packed")
    together = (given.packed is None) == (given.places is None)
    checker.require(together, f"{one} is given, but {other} is None; give both or neither")
    full = f"packed is given, but grad has {len(given.grad)} tensors; give an empty list"
    checker.require(given.packed is None or not given.grad, full)
    lists = {"grad": given.grad} if given.packed is None else {}
    lists |= {name: values for name, (values, _) in state.items()}
    optional = {"master": given.master, "scale_code": given.scale_code, "first": given.first}
    checker.lengths("param", len(given.param), optional, index=given.index, ordinal=given.ordinal, **lists)
    for t, tensor in enumerate(given.param):
        checker.tensor(f"param[{t}]", tensor, *FLOATING, written=True)
        if given.packed is None:
            checker.tensor(f"grad[{t}]", given.grad[t], tensor.dtype, shape=tensor.shape)
        checker.selection(t, tensor.numel(), given.index, given.scale_code, given.first, given.ordinal)
        selected = selected_entries(tensor.numel(), given.index[t])
        for name, (values, dtype) in state.items():
            checker.tensor(f"{name}[{t}]", values[t], dtype, written=True, size=selected)
        narrow = tensor.dtype != torch.float32
        needed = f"param[{t}] has dtype {tensor.dtype}, which needs a compact float32 master, but master is empty"
        checker.require(bool(given.master) or not narrow, needed)
        if narrow:
            checker.tensor(f"master[{t}]", given.master[t], torch.float32, written=True, size=selected)
        elif given.master:
            size = given.master[t].numel()
            checker.require(size == 0, f"master[{t}] has {size} entries, expected 0 of a float32 parameter")
    checker.tensor("packed", given.packed, *PACKED)
    checker.tensor("places", given.places, torch.int64)
    checker.no_overlap()


def check_drop_apply_sgd(given: DropApply, momentum_buffer: TensorList, momentum: float) -> None:
    """Check the arguments of `ops.drop_apply_sgd_`."""
    needed = momentum or momentum_buffer
    state = {"momentum_buffer": (momentum_buffer, torch.float32)} if needed else {}
    _check_drop_apply(Checker("drop_apply_sgd_", given.param[0].device), given, state)


def check_drop_apply_adamw(
    given: DropApply, exp_avg: TensorList, exp_avg_sq: TensorList, updates: TensorList, correction: Tensor
) -> None:
    """Check the arguments of `ops.drop_apply_adamw_`."""
    checker = Checker("drop_apply_adamw_", given.param[0].device)
    checker.tensor("correction", correction, torch.float32)
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
    checker = Checker("mask_", grad[0].device)
    checker.scalars(scale_code, table, step)
    checker.draw(threshold, seed, int(step))
    checker.lengths("grad", len(grad), {"scale_code": scale_code, "first": first}, index=index, ordinal=ordinal)
    for t, (gradient, entries) in enumerate(zip(grad, index, strict=True)):
        checker.tensor(f"grad[{t}]", gradient, *FLOATING, written=True)
        checker.selection(t, gradient.numel(), index, scale_code, first, ordinal)
        checker.ascending(f"index[{t}]", entries)
    checker.no_overlap()


def check_keep_mask(seed: int, ordinal: int, step: int, n: int, threshold: int, first: int) -> None:
    """Check the arguments of `ops.keep_mask`."""
    checker = Checker("keep_mask")
    checker.within("n", n, LONGEST_LIST)
    checker.listed(n, "first", first, "ordinal", ordinal)
    checker.draw(threshold, seed, step)


def check_places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> None:
    """Check the arguments of `ops.places`."""
    checker = Checker("places")
    checker.draw(threshold, seed, step)
    checker.lengths("count", len(count), {"first": first}, ordinal=ordinal)
    for t, selected in enumerate(count):
        checker.within(f"count[{t}]", selected, LONGEST_LIST)
        checker.listed(selected, f"first[{t}]", first[t] if first else 0, f"ordinal[{t}]", ordinal[t])
    pieces = piece_count(count, first)
    checker.require(pieces < 2**32, f"the lists have {pieces} or more pieces; call it for fewer of them at a time")


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
    checker = Checker("pack_", (grad or [packed])[0].device)
    checker.scalars([], None, step)
    checker.draw(threshold, seed, int(step))
    checker.lengths("grad", len(grad), {"first": first}, index=index, ordinal=ordinal)
    checker.tensor("packed", packed, *PACKED, written=True)
    checker.tensor("places", places, torch.int64)
    for t, gradient in enumerate(grad):
        checker.tensor(f"grad[{t}]", gradient, *FLOATING)
        checker.selection(t, gradient.numel(), index, [], first, ordinal)
    checker.no_overlap()


def check_sampled_weight_grad(
    packed: Tensor,
    grad_output: TensorList,
    input: TensorList,
    index: OptionalTensorList,
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    """Check the arguments of `ops.sampled_weight_grad_`."""
    checker = Checker("sampled_weight_grad_", (grad_output or [packed])[0].device)
    checker.scalars([], None, step)
    checker.draw(threshold, seed, int(step))
    lists = {"input": input, "index": index, "ordinal": ordinal}
    checker.lengths("grad_output", len(grad_output), {"first": first}, **lists)
    checker.tensor("packed", packed, torch.float32, written=True)
    checker.tensor("places", places, torch.int64)
    for t, (gradient, inputs) in enumerate(zip(grad_output, input, strict=True)):
        for name, operand in ((f"grad_output[{t}]", gradient), (f"input[{t}]", inputs)):
            shape = list(operand.shape)
            checker.require(len(shape) == 2, f"{name} has shape {shape}, expected two dimensions: tokens and features")
        checker.tensor(f"grad_output[{t}]", gradient, *FLOATING)
        checker.tensor(f"input[{t}]", inputs, gradient.dtype)
        rows, expected = len(inputs), len(gradient)
        checker.require(rows == expected, f"input[{t}] has {rows} tokens, but grad_output[{t}] has {expected}")
        checker.selection(t, gradient.shape[1] * inputs.shape[1], index, [], first, ordinal)
    checker.no_overlap()
