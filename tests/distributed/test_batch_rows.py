"""Rows of a joint batch are shared out, and come together again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import together
from torch import Tensor, nn

from mist_ext.distributed import ranks
from mist_ext.distributed.batch_rows import BatchRows, gather_round_robin
from mist_ext.distributed.gradients import add_up_
from mist_ext.tuners.objective import CosineCrossEntropy, CrossEntropy, MutualInformation
from mist_ext.tuners.views import TwoViews


@pytest.mark.parametrize("size", range(1, 6))
@pytest.mark.parametrize("count", range(12))
def test_every_row_has_one_rank_and_parts_are_as_equal_as_possible(count: int, size: int) -> None:
    parts = [range(count)[BatchRows(count, rank, size).own] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("rows", [2, 7, 12])
@pytest.mark.parametrize("objective", [MutualInformation, CrossEntropy, CosineCrossEntropy])
def test_the_ranks_gradients_add_up_to_that_of_the_joint_batch(objective: Any, rows: int) -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(objective.views, rows, 6), torch.randint(0, 3, (rows,))
    backbone = nn.Linear(6, 5)
    head = objective(5, 4 if objective is MutualInformation else torch.arange(3))
    parameters = [*backbone.parameters(), *head.parameters()]

    alone = head(backbone(inputs.flatten(0, 1)), labels)
    gradients = torch.autograd.grad(alone, parameters)
    expected = alone.item()

    def work(rank: int) -> tuple[float, list[Tensor]]:
        shared = BatchRows.of(rows)
        own = shared.own if not shared.empty else slice(0, 1)  # as `Batches` has it
        loss = head(backbone(inputs[:, own].flatten(0, 1)), labels[own], shared)
        loss.backward()
        add_up_(p.grad for p in parameters)
        return loss.item(), [p.grad for p in parameters]

    for loss, reduced in together(3, work):
        assert loss == pytest.approx(expected, rel=1e-6)
        for ours, theirs in zip(reduced, gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_rank_sees_the_views_that_its_rows_have_in_the_joint_batch() -> None:
    images = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    views = TwoViews()
    whole = views(images, seed=5).view(2, 10, 3, 32, 32)
    for size in (2, 3):
        for rank in range(size):
            rows = BatchRows(10, rank, size)
            assert torch.equal(views(images[rows.own], 5, rows).view(2, -1, 3, 32, 32), whole[:, rows.own])


def test_what_was_done_in_turns_comes_back_in_order() -> None:
    sizes = [3, 3, 3, 2]
    batches = torch.arange(11 * 2.0).view(11, 2).split(sizes)

    def work(rank: int) -> Tensor:
        own = [*batches][rank :: ranks.size()]
        return gather_round_robin(torch.cat(own) if own else None, sizes, torch.device("cpu"))

    for size in (2, 3, 5):  # the last one has a rank without a turn
        for gathered in together(size, work):
            assert torch.equal(gathered, torch.cat(batches))
