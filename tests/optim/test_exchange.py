"""SparseExchange: two processes that exchange kept gradients step as one process does with all of them."""

from __future__ import annotations

from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
from exchanging import (
    OPTIMIZERS,
    alone,
    assert_close,
    assert_same,
    branches,
    branches_alone,
    exchanged,
    ranks,
    resumed,
)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_two_ranks_step_as_one_process_with_all_gradients(make, reduce, same_bits) -> None:
    one, other = ranks(lambda: exchanged(make=make, reduce=reduce))
    expected = alone(make=make, reduce=reduce)
    assert_close(one["values"], expected, 1e-6)
    assert_same(same_bits, one["values"], other["values"])
    assert one["steps"] == 5
    moved = [not torch.equal(one["began"][name], value) for name, value in one["values"].items() if "/" not in name]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_bits_are_the_same_within_backward(make, dtype, same_bits) -> None:
    within, _ = ranks(lambda: exchanged(make=make, dtype=dtype, within=True))
    after, _ = ranks(lambda: exchanged(make=make, dtype=dtype))
    assert_same(same_bits, within["values"], after["values"])
    assert within["bytes"] == after["bytes"] > 0
    assert within["gradients left"] == 0 < after["gradients left"]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_masters_of_16_bit_parameters_follow_the_summed_gradients(dtype) -> None:
    """One process has to round the sum of the gradients to their dtype, the ranks have not."""
    ours, _ = ranks(lambda: exchanged(dtype=dtype))
    expected = alone(dtype=dtype)
    masters = [name for name in expected if name.endswith("/master")]
    assert len(masters) > 40
    moved = far = 0.0
    for name in masters:
        moved += float((expected[name] - ours["began"][name]).square().sum())
        far += float((expected[name] - ours["values"][name]).square().sum())
    assert 0 < far < (0.03**2) * moved
    for name in masters:
        parameter = ours["values"][name.removesuffix("/master")].flatten()
        index = ours["values"].get(name.replace("/master", "/index"))
        chosen = parameter if index is None else parameter[index.long()]
        assert torch.equal(chosen, ours["values"][name].to(chosen.dtype))


def test_a_bfloat16_wire_takes_half_of_the_bytes_and_stays_close() -> None:
    full, _ = ranks(lambda: exchanged())
    half, _ = ranks(lambda: exchanged(wire="bf16"))
    assert half["bytes"] == full["bytes"] / 2
    moved = far = 0.0
    for name in (name for name in full["values"] if "/" not in name):
        moved += float((full["values"][name] - full["began"][name]).square().sum())
        far += float((full["values"][name] - half["values"][name]).square().sum())
    assert 0 < far < (0.02**2) * moved


def test_the_bytes_are_those_of_the_kept_entries() -> None:
    ours, _ = ranks(lambda: exchanged())
    assert ours["bytes"] == pytest.approx(4 * ours["kept"], rel=0.05)


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
def test_the_used_parts_may_change_on_all_ranks_together(within, same_bits) -> None:
    used = [["lll", "lll"], ["lll", "lll"], ["lrl", "lrl"], ["rrr", "rrr"], ["rrr", "rrr"]]
    one, other = ranks(lambda: branches(used=used, within=within))
    assert_same(same_bits, one, other)
    assert_close(one, branches_alone(used), 1e-6)


def test_loading_a_state_changes_what_is_drawn_next(same_bits) -> None:
    one, other = ranks(lambda: resumed())
    assert_same(same_bits, one, other)
    assert_same(same_bits, one, ranks(lambda: exchanged())[0]["values"])


def test_one_process_alone_is_a_group_too(same_bits) -> None:
    """In a group of one the exchange changes nothing."""

    def one() -> dict[str, Any]:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return exchanged()

    (ours,) = processes.together(1, lambda _: one())
    assert_same(same_bits, ours["values"], alone(size=1))
