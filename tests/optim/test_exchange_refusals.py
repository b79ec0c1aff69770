"""What SparseExchange refuses: ranks that differ, and settings that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
from exchanging import (
    SIZE,
    branches,
    exchanged,
    loss_of,
    optimizer_of,
    selection_of,
    vit,
)
from torch import nn

from mist_ext import InBackward, Selection, SparseExchange, SparseSGD
from mist_ext.optim import LargestGradientSGD


def differing(what: str) -> None:
    """Enter with one thing that rank 1 has otherwise."""
    odd = dist.get_rank() == 1
    model = vit()
    if odd and what == "parameters":
        with torch.no_grad():
            model.blocks[1].mlp.fc1.weight[0, 0] += 1
    chosen = selection_of(model, seed=2 if odd and what == "selection" else 1)
    options: dict[str, Any] = {"lr": 0.01, "keep": 0.1, "seed": 0, "step": 0}
    if odd and what in options:
        options[what] = {"lr": 0.02, "keep": 0.2, "seed": 5, "step": 3}[what]
    optimizer = SparseSGD(model.named_parameters(), chosen, **options)
    wire = torch.bfloat16 if odd and what == "wire" else torch.float32
    with SparseExchange(optimizer, wire=wire):
        pass


def scaled() -> None:
    model = vit()
    optimizer = optimizer_of(model)
    scaler = torch.amp.GradScaler("cpu")
    with SparseExchange(optimizer):
        scaler.scale(loss_of(model, 0, 0)).backward()
        scaler.step(optimizer)


def half_within() -> None:
    exchanged(within=dist.get_rank() == 1)


def entered_twice() -> None:
    optimizer = optimizer_of(vit())
    with SparseExchange(optimizer), SparseExchange(optimizer):
        pass


def refusals(work: Callable[[], Any]) -> list[str]:
    """What each rank is told."""
    outcomes = processes.outcomes_of(SIZE, lambda _: work())
    assert all(isinstance(outcome, processes.Failed) for outcome in outcomes), "a rank was not told of the error"
    return [str(outcome) for outcome in outcomes]


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
@pytest.mark.parametrize("before", [0, 2], ids=["first_step", "later"])
def test_a_gradient_on_one_rank_alone_is_named(before, within) -> None:
    used = [["lll", "lll"]] * before + [["lrl", "lll"]]
    for error in refusals(lambda: branches(used=used, within=within)):
        assert "'blocks.1.left.weight' has a gradient on rank 1, but none on rank 0" in error


DIFFERENT = {
    "selection": r"digest of the selection of 'cls_token' is \w+ on rank 0, but \w+ on rank 1",
    "seed": "seed is 0 on rank 0, but 5 on rank 1",
    "keep": "keep of group 0 is 0.1 on rank 0, but 0.2 on rank 1",
    "lr": "lr of group 0 is 0.01 on rank 0, but 0.02 on rank 1",
    "step": "step of group 0 is 0 on rank 0, but 3 on rank 1",
    "wire": "wire is torch.float32 on rank 0, but torch.bfloat16 on rank 1",
    "parameters": r"checksum of 'blocks.1.mlp.fc1.weight' is -?\d+ on rank 0",
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_ranks_that_differ_are_refused(what) -> None:
    for error in refusals(lambda: differing(what=what)):
        with pytest.raises(RuntimeError, match=DIFFERENT[what]):
            raise RuntimeError(error)


def test_a_grad_scaler_is_refused() -> None:
    assert all("use bfloat16, which needs no scaler" in error for error in refusals(lambda: scaled()))


def test_two_exchanges_of_one_optimiser_are_refused() -> None:
    assert all("in another SparseExchange already" in error for error in refusals(lambda: entered_twice()))


def test_steps_within_backward_on_one_rank_alone_are_refused() -> None:
    told = "enter InBackward or SampledGradients on all ranks or on none"
    assert all(told in error for error in refusals(lambda: half_within()))


def without_exchange() -> None:
    model = nn.Linear(4, 4)
    optimizer = SparseSGD(model.named_parameters(), Selection.whole(model.named_parameters()))
    averaged = nn.parallel.DistributedDataParallel(model)
    with InBackward(optimizer):
        averaged(torch.ones(2, 4)).square().sum().backward()


def test_steps_within_backward_that_do_not_wait_for_the_other_ranks_are_refused() -> None:
    for error in refusals(lambda: without_exchange()):
        assert "would be updated by this rank's gradient alone" in error
        assert "enter SparseExchange(optimizer) too" in error


def tiny(make: type = SparseSGD) -> Any:
    model = nn.Linear(4, 4)
    return make(model.named_parameters(), Selection.whole(model.named_parameters()))


def test_without_a_process_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"needs a process group: start with torchrun"), SparseExchange(tiny()):
        pass


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="LargestGradientSGD needs dense gradients"):
        SparseExchange(tiny(LargestGradientSGD))
    with pytest.raises(ValueError, match=r"wire is torch.float16, expected torch.float32 or torch.bfloat16"):
        SparseExchange(tiny(), wire=torch.float16)
    with pytest.raises(ValueError, match="reduce is 'max', expected 'sum' or 'mean'"):
        SparseExchange(tiny(), reduce="max")


def test_momentum_that_is_switched_on_later_is_refused_before_anything_is_sent() -> None:
    def work(_rank: int) -> list[float]:
        model = nn.Linear(4, 4)
        before = [p.detach().clone() for p in model.parameters()]
        selection = Selection.whole(model.named_parameters())
        optimizer = SparseSGD(model.named_parameters(), selection, momentum=0.0, drop="updates")
        with SparseExchange(optimizer):
            optimizer.param_groups[0]["momentum"] = 0.9
            model(torch.ones(2, 4)).sum().backward()
            with pytest.raises(ValueError, match="SparseSGD needs dense gradients here"):
                optimizer.step()
        return [float((p - q).abs().max()) for p, q in zip(model.parameters(), before, strict=True)]

    assert processes.together(2, work) == [[0.0, 0.0]] * 2
