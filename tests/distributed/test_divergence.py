"""Ranks of which one meets a NaN end together, with the same words, and agree on the losses of an epoch."""

from __future__ import annotations

import math

import torch
from processes import together

from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.methods.training import Recipe, fit
from mist_ext.tuners.divergence import Diverged, EpochMonitor


def made(batches: int) -> EpochMonitor:
    return EpochMonitor(batches, torch.device("cpu"), lambda batch, sign: Diverged(f"{batch}: {sign}"), parts=True)


def test_batches_in_turns_are_told_and_summed_together() -> None:
    def work(rank: int) -> object:
        losses = made(3)
        for first in (0, 2):
            if first + rank < 3:
                losses.begin(first + rank, torch.tensor(float(first + rank)))
                losses.end(first + rank, [torch.ones(2)])
            losses.passed(min(first + 2, 3))
        again = EpochMonitor(3, torch.device("cpu"), losses.diverged, losses.losses(), parts=True)
        return losses.mean(), losses.losses().tolist(), again.losses().tolist()

    assert together(2, work) == [(1.0, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0])] * 2


def test_a_nan_of_one_rank_ends_all_with_the_earliest_batch() -> None:
    def work(rank: int) -> object:
        losses = made(6)
        losses._rarely = True
        for first in (0, 2, 4):
            bad = (first, rank) in ((2, 1), (4, 0))
            losses.begin(first + rank, torch.tensor(math.inf if bad else 1.0))
            losses.end(first + rank, [torch.ones(2)])
            try:
                losses.passed(first + 2)
            except Diverged as error:
                return str(error), first, error.on_every_rank  # type: ignore[attr-defined]
        return None

    assert together(2, work) == [("3: the loss is infinite", 4, True)] * 2


def test_training_ends_on_every_rank() -> None:
    def work(rank: int) -> str:
        parameter = torch.nn.Parameter(torch.ones(1))
        batches = [(torch.tensor(math.nan if rank and step == 1 else 1.0), torch.zeros(1)) for step in range(3)]
        groups, recipe = [([parameter], 1.0)], Recipe(1, 0.1, 2)
        try:
            fit(
                lambda x, _: (x * parameter).sum(),
                groups,
                recipe,
                lambda _: batches,
                (1,),
                phase="P",
                task=2,
                rows=lambda _: BatchRows(2, rank, 2),
            )
        except Diverged as error:
            return str(error)
        return ""

    first, second = together(2, work)
    assert "task 2, P, epoch 1 of 1, batch 2 of 3: the loss is NaN" in first
    assert first == second
