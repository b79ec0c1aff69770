"""accumulate_: score += scale * g^2 where an entry is not frozen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import ops, reference

SHAPES = [(), (0,), (1,), (7,), (63,), (64,), (65,), (3, 5, 7), (32767,), (32768,), (32769,), (2, 50001)]


def drawn(dtype: torch.dtype, frozen: str) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Scores, gradients with zeros, tiny and infinite values in them, and frozen bits."""
    drawing = torch.Generator().manual_seed(5)
    score = [torch.rand(shape, generator=drawing) for shape in SHAPES]
    grad = [torch.randn(shape, generator=drawing).to(dtype) for shape in SHAPES]
    for g in grad:
        flat = g.view(-1)
        flat[::11], flat[1::13], flat[2::17] = -0.0, 1e-5, float("inf")
    share = {"none": 0.0, "few": 0.01, "many": 0.5, "all": 1.0}[frozen]
    bits = [pack(torch.rand(g.numel(), generator=drawing) < share) for g in grad]
    return score, grad, [None if frozen == "none" or t % 3 == 2 else b for t, b in enumerate(bits)]


def pack(flags: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(flags.numpy(), bitorder="little"))


def expected(score: Tensor, grad: Tensor, frozen: Tensor | None, scale: float) -> Tensor:
    g = grad.float().numpy()
    total = np.asarray(score.numpy() + np.float32(scale) * (g * g), dtype=np.float32)
    if frozen is not None:
        flags = np.unpackbits(frozen.numpy(), bitorder="little", count=g.size).astype(bool).reshape(g.shape)
        total = np.where(flags, score.numpy(), total)
    return torch.from_numpy(np.array(total))


@pytest.mark.parametrize(("frozen", "scale"), [("none", 1.0), ("few", 0.3), ("many", 0.3), ("all", 1.0)])
def test_squares_are_added_where_nothing_is_frozen(device, dtype, frozen, scale, same_bits, surrounded) -> None:
    score, grad, bits = drawn(dtype, frozen)
    placed = [surrounded(s, device) for s in score]
    ops.accumulate_(
        placed,
        [surrounded(g, device) for g in grad],
        [None if b is None else surrounded(b, device) for b in bits],
        scale,
    )
    oracle = [s.clone() for s in score]
    reference.accumulate_(oracle, grad, bits, scale)
    for before, g, b, ours, theirs in zip(score, grad, bits, placed, oracle, strict=True):
        assert same_bits(ours, expected(before, g, b, scale))
        assert same_bits(theirs, expected(before, g, b, scale))


@pytest.mark.parametrize("frozen", ["none", "few", "many"])
def test_neither_threads_nor_instruction_sets_matter(threads, instruction_set, dtype, frozen, same_bits) -> None:
    score, grad, bits = drawn(dtype, frozen)
    ours = [s.clone() for s in score]
    ops.accumulate_(ours, grad, bits)
    for before, g, b, after in zip(score, grad, bits, ours, strict=True):
        assert same_bits(after, expected(before, g, b, 1.0))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@given(
    rows=st.lists(
        st.tuples(st.floats(width=32, allow_infinity=False, allow_nan=False), st.floats(width=32), st.booleans()),
        max_size=90,
    ),
    scale=st.floats(0, 16, width=32),
)
def test_any_values(device, same_bits, rows, scale) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    score, grad = (torch.tensor(column, dtype=torch.float32) for column in columns[:2])
    frozen = pack(torch.tensor(columns[2], dtype=torch.bool))
    ours = score.to(device, copy=True)
    ops.accumulate_([ours], [grad.to(device)], [frozen.to(device)], scale)
    theirs = expected(score, grad, frozen, scale)
    assert torch.equal(ours.isnan().cpu(), theirs.isnan())
    assert same_bits(ours.cpu().nan_to_num(nan=0), theirs.nan_to_num(nan=0))  # the bits of a NaN mean nothing


def test_frozen_entries_are_left_alone_whatever_their_gradient(device, same_bits) -> None:
    before = torch.tensor([-0.0, 1.5, float("inf"), -1.0] * 20)
    for run, where in ((ops, device), (reference, torch.device("cpu"))):
        score = before.to(where, copy=True)
        grad = torch.tensor([1.0, float("nan"), float("-inf"), 3.0] * 20, device=where)
        run.accumulate_([score], [grad], [torch.full((10,), 255, dtype=torch.uint8, device=where)], 1.0)
        assert same_bits(score, before)


def test_bits_behind_the_last_entry_mean_nothing(device) -> None:
    score = torch.zeros(3, device=device)
    ops.accumulate_([score], [torch.ones(3, device=device)], [torch.tensor([0b11111010], dtype=torch.uint8).to(device)])
    assert score.tolist() == [1, 0, 1]


def test_no_tensors_are_no_work() -> None:
    ops.accumulate_([], [])


@given(st.lists(st.booleans(), max_size=70))
def test_bits_are_packed_least_significant_first(flags) -> None:
    bools = torch.tensor(flags, dtype=torch.bool)
    assert torch.equal(ops.pack_bits(bools), pack(bools))
    assert torch.equal(ops.unpack_bits(pack(bools), len(flags)), bools)
