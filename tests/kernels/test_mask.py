"""mask_: every entry of a gradient but the kept ones becomes zero, those are multiplied by their factor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import ops, reference

CPU = torch.device("cpu")
TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()
PIECE = 131072  # of a gradient, and of an index
SIZES = [0, 1, 8, 9, 2048, 2049, 32768, 70001, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 9]
SHARES = {"whole": None, "none": 0.0, "a_twentieth": 0.05, "half": 0.5, "all": 1.0}


def drawn(dtype: torch.dtype, share: float | None) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    drawing = torch.Generator().manual_seed(8)
    grad = [torch.randn(size, generator=drawing).to(dtype) for size in SIZES]
    index: list[Tensor | None] = [None] * len(SIZES)
    if share is not None:
        index = [torch.randperm(n, generator=drawing)[: round(share * n)].sort().values.int() for n in SIZES]
    counts = [n if i is None else len(i) for n, i in zip(SIZES, index, strict=True)]
    code = [torch.randint(0, 256, (c,), generator=drawing, dtype=torch.uint8) if c % 2 else None for c in counts]
    return grad, index, code


def slow(grad: Tensor, index: Tensor | None, code: Tensor | None, ordinal: int, keep: float, step: int) -> Tensor:
    entries = range(len(grad)) if index is None else index.tolist()
    kept = reference.keep_mask(1993, ordinal, step, len(entries), ops.keep_threshold(keep)).nonzero().flatten().tolist()
    masked = torch.zeros_like(grad)
    at = torch.tensor([entries[j] for j in kept], dtype=torch.int64)
    masked[at] = grad[at] if code is None else (grad[at].float() * TABLE[code[kept].long()]).to(grad.dtype)
    return masked


def apply(run, device, place, grad, index, code, keep, step) -> list[Tensor]:
    grad = [place(g.clone(), device) for g in grad]
    index, code = ([None if t is None else place(t, device) for t in tensors] for tensors in (index, code))
    ordinals = [3 * t + 1 for t in range(len(grad))]
    position, table = torch.tensor(step, device=device), TABLE.to(device)
    threshold = ops.keep_threshold(keep)
    run.mask_(grad, index, code, table, ordinals, threshold=threshold, seed=1993, step=position)
    return grad


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("keep", [0.0, 0.1, 1.0])
def test_everything_but_the_kept_entries_becomes_zero(device, dtype, share, keep, same_bits, surrounded) -> None:
    lists = drawn(dtype, share)
    ours = apply(ops, device, surrounded, *lists, keep, 4)
    oracle = apply(reference, CPU, Tensor.to, *lists, keep, 4)
    for t, (grad, index, code) in enumerate(zip(*lists, strict=True)):
        expected = slow(grad, index, code, 3 * t + 1, keep, 4)
        assert same_bits(ours[t], expected)
        assert same_bits(oracle[t], expected)


def test_neither_threads_nor_instruction_sets_matter(threads, instruction_set, dtype, same_bits) -> None:
    lists = drawn(dtype, 0.5)
    ours = apply(ops, CPU, Tensor.to, *lists, 0.1, 4)
    for t, (grad, index, code) in enumerate(zip(*lists, strict=True)):
        assert same_bits(ours[t], slow(grad, index, code, 3 * t + 1, 0.1, 4))


@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=100),
    keep=st.sampled_from([0.1, 0.5, 0.9]),
    step=st.integers(0, 2**40),
)
def test_any_selection(device, same_bits, flags, keep, step) -> None:
    grad = torch.arange(1, len(flags) + 1).float()
    index = torch.tensor(flags).nonzero().flatten().int()
    (ours,) = apply(ops, device, Tensor.to, [grad], [index], [None], keep, step)
    assert same_bits(ours, slow(grad, index, None, 1, keep, step))


def test_entries_that_are_not_kept_become_zero_whatever_they_were(device, dtype) -> None:
    grad = torch.full((100,), float("nan"), dtype=dtype, device=device)
    ops.mask_([grad], [None], [None], None, [0], threshold=0, seed=0, step=torch.tensor(0, device=device))
    assert (grad == 0).all()


def test_kept_entries_keep_their_bits(device, dtype, same_bits) -> None:
    grad = torch.tensor([-0.0, float("inf"), 1e-7, -3.0]).to(dtype).repeat(30)
    ours = grad.to(device, copy=True)
    ops.mask_([ours], [None], [None], None, [0], threshold=65536, seed=0, step=torch.tensor(0, device=device))
    assert same_bits(ours, grad)


def test_it_keeps_what_the_sparse_step_keeps(device) -> None:
    n, options = 5000, {"threshold": 6554, "seed": 11, "step": torch.tensor(3, device=device)}
    index = torch.arange(0, n, 2, dtype=torch.int32, device=device)
    param, grad = torch.zeros(n, device=device), torch.ones(n, device=device)
    ops.drop_apply_sgd_(
        [param], [grad], [index], [], [], [None], None, [2],
        lr=torch.tensor(1.0, device=device), momentum=0.0, weight_decay=0.0, **options,
    )  # fmt: skip
    ops.mask_([grad], [index], [None], None, [2], **options)
    assert 150 < grad.sum() < 350
    assert torch.equal(grad, -param)


def test_no_tensors_are_no_work() -> None:
    ops.mask_([], [], [], None, [], threshold=1, seed=0, step=torch.tensor(0))


@pytest.mark.parametrize("descent", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 8])
def test_an_index_that_descends_anywhere_is_refused_before_any_change(descent: int, threads: int) -> None:
    sizes = (9, 2 * PIECE + 9)
    grad, index = [torch.ones(size) for size in sizes], [torch.arange(size, dtype=torch.int32) for size in sizes]
    index[1][descent] = index[1][descent - 1]
    with pytest.raises(RuntimeError, match=r"index\[1\] is not strictly ascending"):
        ops.mask_(grad, index, [], None, [0, 1], threshold=6554, seed=1, step=torch.tensor(0))
    assert all(bool((g == 1).all()) for g in grad)
