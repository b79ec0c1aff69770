"""What an optimiser has changed since it was made, as a delta."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mist_ext import Selection, SparseAdamW, SparseSGD
from mist_ext.deltas import TaskDelta, state_digest

OPTIMIZERS = {"SparseSGD": SparseSGD, "SparseAdamW": SparseAdamW}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 40).bfloat16(), nn.BatchNorm1d(40))
    model.append(nn.Linear(40, 40))
    model[4].weight = model[0].weight = nn.Parameter(torch.randn(40, 40))
    return model


def select(model: nn.Module) -> Selection:
    return Selection.random(model.named_parameters(), 0.05, seed=1)


def steps(optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_remembering_optimiser_gives_the_delta_between_the_models(make: Callable) -> None:
    model = network()
    before = copy.deepcopy(model)
    optimizer = make(model.named_parameters(), select(model), lr=0.1, keep=0.5, remember=True)
    assert not optimizer.delta(model).changes
    steps(optimizer)
    delta = optimizer.delta(model, info={"task": 1})
    assert delta == TaskDelta.between(before, model, info={"task": 1})
    assert {"0.weight", "4.weight"} <= delta.changes.keys()  # tied
    delta.undo_(model, verify=True)
    assert state_digest(model) == state_digest(before)


def test_the_values_before_survive_saving_and_loading() -> None:
    model = network()
    optimizer = SparseSGD(model.named_parameters(), select(model), lr=0.1, remember=True)
    steps(optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = SparseSGD(model.named_parameters(), select(model), lr=0.1, remember=True)
    assert not resumed.delta().changes
    resumed.load_state_dict(saved)
    steps(resumed)
    assert copy.deepcopy(resumed).delta() == resumed.delta() == optimizer.delta()
    forgetful = SparseSGD(model.named_parameters(), select(model), lr=0.1)
    with pytest.raises(ValueError, match="differs in 'before': this optimiser has none"):
        forgetful.load_state_dict(saved)


def test_without_remembering_the_delta_is_forward_only_and_needs_a_digest() -> None:
    model = network()
    before, base = copy.deepcopy(model), state_digest(model)
    optimizer = SparseSGD(model.named_parameters(), select(model), lr=0.1)
    assert "before" not in optimizer.state[model[0].weight]
    steps(optimizer)
    with pytest.raises(ValueError, match="make the optimiser with remember=True, or give the base_digest"):
        optimizer.delta(model)
    delta = optimizer.delta(model, base_digest=base)
    assert delta.forward_only
    assert delta.changes["0.weight"].entries == optimizer.selection.count("0.weight")
    delta.apply_(before)
    assert state_digest(before) == state_digest(model)


def test_another_model_is_refused_by_name() -> None:
    model = network()
    optimizer = SparseSGD(model.named_parameters(), select(model), remember=True)
    with pytest.raises(ValueError, match=r"'0.weight' is not a parameter of this model"):
        optimizer.delta(network())
