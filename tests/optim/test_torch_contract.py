"""What torch's own tests (test/test_optim.py) ask of every optimiser, asked of ours."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import Made, assert_same, give_gradients, made, network, selected, train
from torch import Tensor, nn
from torch.optim import lr_scheduler

from mist_ext.selection import Selection


def by_loading(made: Made) -> Made:
    model, optimizer = made
    other = network(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict())
    named = list(other.named_parameters())
    again = type(optimizer)([{"params": named[:2]}, {"params": named[2:]}], selected(network()), seed=3)
    again.load_state_dict(optimizer.state_dict())
    return other, again


def by_saving(made: Made) -> Made:
    file = io.BytesIO()
    torch.save((made[0].state_dict(), made[1].state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    made[0].load_state_dict(weights)
    made[1].load_state_dict(state)
    return made


WAYS: dict[str, Callable[[Made], Made]] = {
    "load_state_dict": by_loading,
    "torch.save": by_saving,
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_run_goes_on_with_the_same_bits_after_any_two_ways_of_copying(kind, dtype, first, second, same_bits) -> None:
    expected = made(kind, dtype)
    train(*expected, range(6))
    pair = made(kind, dtype)
    train(*pair, range(2))
    pair = WAYS[first](pair)
    train(*pair, range(2, 4))
    pair = WAYS[second](pair)
    train(*pair, range(4, 6))
    assert_same(pair[0], expected[0], same_bits)
    assert pair[1].steps == 6


def test_a_state_may_be_loaded_again_and_again(kind) -> None:
    _, optimizer = made(kind)
    for _ in range(3):
        optimizer.load_state_dict(optimizer.state_dict())
    state = optimizer.state_dict()
    for _ in range(3):
        optimizer.load_state_dict(copy.deepcopy(state))


def test_a_loaded_state_shares_no_memory_and_the_one_that_was_given_is_not_changed(kind) -> None:
    model, optimizer = made(kind)
    train(model, optimizer, range(2))
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    other, again = by_loading((model, optimizer))
    train(other, again, range(2, 5))
    torch.testing.assert_close(state["state"], before["state"], rtol=0, atol=0)
    assert state["param_groups"] == before["param_groups"]


def test_options_of_the_state_are_taken_over_as_torch_does(kind) -> None:
    _, optimizer = made(kind)
    state = optimizer.state_dict()
    _, other = made(kind, keep=0.1, weight_decay=0.3)
    other.load_state_dict(state)
    for group, saved in zip(other.param_groups, state["param_groups"], strict=True):
        for option in ("lr", "keep", "weight_decay"):
            assert group[option] == saved[option]


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda o: lr_scheduler.StepLR(o, 2),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    lambda o: lr_scheduler.LinearLR(o),
    lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]),
    lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=9, cycle_momentum="momentum" in o.defaults),
    lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_schedules_go_on_over_saving_and_loading(kind, schedule, tensor, same_bits) -> None:
    def begun() -> tuple[nn.Module, Any, Any]:
        model = network()
        rate = torch.tensor(0.1) if tensor else 0.1
        optimizer = kind.sparse(model.named_parameters(), selected(model), lr=rate, keep=0.5)
        return model, optimizer, schedule(optimizer)

    def go_on(model: nn.Module, optimizer: Any, rates: Any, steps: range) -> None:
        for step in steps:
            train(model, optimizer, range(step, step + 1))
            rates.step()

    expected, pair = begun(), begun()
    go_on(*expected, range(6))
    go_on(*pair, range(3))
    again = begun()
    for ours, theirs in zip(again, pair, strict=True):
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    go_on(*again, range(3, 6))
    assert_same(again[0], expected[0], same_bits)
    assert float(again[1].param_groups[0]["lr"]) == float(expected[1].param_groups[0]["lr"])


def test_a_schedule_that_lowers_the_loss_on_plateaus_works(kind) -> None:
    model, optimizer = made(kind)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        train(model, optimizer, range(1))
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.05


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_are_cleared_as_asked(kind, set_to_none) -> None:
    model, optimizer = made(kind)
    give_gradients(model, 0)
    optimizer.zero_grad(set_to_none=set_to_none)
    for p in model.parameters():
        assert (p.grad is None) if set_to_none else not p.grad.any()


def test_a_step_without_gradients_changes_nothing_but_counts(kind, same_bits) -> None:
    model, optimizer = made(kind)
    optimizer.step()
    assert_same(model, network(), same_bits)
    assert optimizer.steps == 1


def test_a_closure_s_loss_is_returned(kind) -> None:
    model, optimizer = made(kind)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(3, 12)).square().mean()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert isinstance(first, Tensor)
    for _ in range(20):
        last = optimizer.step(closure)
    assert last < first


def test_empty_tensors_are_stepped_over(kind) -> None:
    pairs = [("empty", nn.Parameter(torch.zeros(0, 3))), ("full", nn.Parameter(torch.ones(2, 3)))]
    optimizer = kind.sparse(pairs, Selection.magnitude(pairs, 0.5), lr=0.1, keep=1)
    for _, p in pairs:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert (pairs[1][1] != 1).any()
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (nn.Parameter(torch.zeros(3)), TypeError, "with their names"),
        (nn.Linear(2, 2), TypeError, "with their names.*this is a Linear"),
        ([[("p", nn.Parameter(torch.zeros(3)))]], TypeError, "one of these is a list"),
        ([("p", torch.zeros(3, requires_grad=True) * 2)], ValueError, "non-leaf"),
        ([("p", "text")], TypeError, "with their names"),
        ([], ValueError, "'p', which is not among the parameters given"),
        ([{"lr": 0.1}], TypeError, "expected a dict with 'params'"),
    ],
)
def test_what_torch_refuses_as_parameters_is_refused(kind, given, error, message) -> None:
    with pytest.raises(error, match=message):
        kind.sparse(given, Selection({"p": None}, {"p": (3,)}))


def test_a_parameter_in_two_groups_is_refused(kind) -> None:
    p = nn.Parameter(torch.zeros(3))
    selection = Selection({"p": None}, {"p": (3,)})
    with pytest.raises(ValueError, match="'p' is given twice"):
        kind.sparse([{"params": [("p", p)]}, {"params": [("p", p)]}], selection)
    optimizer = kind.sparse([("p", p)], selection)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [("p", p)]})
    with pytest.raises(TypeError):
        optimizer.add_param_group([("p", p)])


def test_complex_parameters_are_refused_by_name(kind) -> None:
    p = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"'p' is torch.complex64"):
        kind.sparse([("p", p)], Selection({"p": None}, {"p": (3,)}))


def test_a_state_may_come_from_another_device(kind, device, same_bits) -> None:
    model, optimizer = made(kind)
    train(model, optimizer, range(3))
    other = copy.deepcopy(model).to(device)
    named = list(other.named_parameters())
    again = kind.sparse([{"params": named[:2]}, {"params": named[2:]}], selected(model), seed=3)
    again.load_state_dict(optimizer.state_dict())
    for p in other.parameters():
        assert all(value.device == p.device for value in again.state[p].values())
    train(model, optimizer, range(3, 5))
    train(other, again, range(3, 5))
    assert_same(model, other.to("cpu"), same_bits)


def test_reading_the_state_of_a_parameter_that_is_not_selected_does_no_harm(kind) -> None:
    model = network()
    optimizer = kind.sparse(model.named_parameters(), selected(model).subset("^0"))
    assert optimizer.state[model[2].weight] == {}
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(optimizer.state_dict()["state"]) == 2


def test_it_says_what_it_is(kind) -> None:
    shown = repr(made(kind)[1])
    assert shown.startswith(kind.sparse.__name__)
    assert "keep: 0.5" in shown
