"""SampledGradients on two processes: SparseExchange sums what each has sampled."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from exchanging import OPTIMIZERS, SIZE, alone, assert_close, assert_same, exchanged, loss_of, optimizer_of, ranks, vit
from processes import Failed, outcomes_of
from torch import nn

from mist_ext import SampledGradients


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_two_ranks_step_as_one_process_with_all_dense_gradients(make, same_bits) -> None:
    options = {"reduce": "mean", "eps": 1e-3} if make == "adamw" else {"reduce": "sum"}
    one, other = ranks(lambda: exchanged(make=make, sampled=True, **options))
    dense, _ = ranks(lambda: exchanged(make=make, **options))
    assert_same(same_bits, one["values"], other["values"])
    assert_close(one["values"], alone(make=make, **options), 1e-4)
    assert one["steps"] == 5
    assert one["bytes"] == dense["bytes"] > 0
    assert dense["gradients left"] - one["gradients left"] == 14  # all weights of linear layers and of the patches


def test_a_bfloat16_wire_takes_half_of_the_bytes() -> None:
    full, _ = ranks(lambda: exchanged(sampled=True))
    half, _ = ranks(lambda: exchanged(sampled=True, wire="bf16"))
    assert half["bytes"] == full["bytes"] / 2
    assert_close(half["values"], full["values"], 0.05)


def averaged_alone() -> None:
    model = vit()
    optimizer = optimizer_of(model)
    averaged = nn.parallel.DistributedDataParallel(model)
    with SampledGradients(optimizer, model):
        loss_of(averaged, 0, dist.get_rank()).backward()


def sampled_by_one() -> None:
    exchanged(sampled=dist.get_rank() == 1)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (averaged_alone, r"the kept entries of 'head.weight' are this rank's alone"),
        (sampled_by_one, "enter InBackward or SampledGradients on all ranks or on none"),
    ],
)
def test_ranks_whose_gradients_would_not_be_summed_are_refused(work, told) -> None:
    for outcome in outcomes_of(SIZE, lambda _: work()):
        assert isinstance(outcome, Failed)
        assert told in str(outcome)
