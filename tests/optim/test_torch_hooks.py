"""Hooks around steps, saving and loading work as those of torch's optimisers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_networks import made, train
from torch import Tensor


def test_hooks_around_a_step_are_called_and_may_change_its_arguments(kind) -> None:
    model, optimizer = made(kind)
    calls: list[str] = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_post_hook(lambda *_: calls.append("after")),
    ]
    train(model, optimizer, range(2))
    assert calls == ["before", "after"] * 2
    for handle in handles:
        handle.remove()
    train(model, optimizer, range(1))
    assert len(calls) == 4


def test_hooks_around_saving_see_and_may_replace_whole_states(kind) -> None:
    model, optimizer = made(kind)
    train(model, optimizer, range(2))
    seen: list[dict] = []
    optimizer.register_state_dict_pre_hook(lambda _: seen.append({}))
    handle = optimizer.register_state_dict_post_hook(lambda _, state: seen.append(state))
    state = optimizer.state_dict()
    assert seen == [{}, state]
    assert set(kind.state) < set(state["state"][0])
    assert state["param_groups"][0]["identity"]["seed"] == 3
    handle.remove()
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "more": 1})
    assert optimizer.state_dict()["more"] == 1


def test_hooks_around_loading_see_and_may_replace_whole_states(kind) -> None:
    model, optimizer = made(kind)
    train(model, optimizer, range(2))
    (name,) = list(kind.state)[:1]
    state = optimizer.state_dict()

    def double(_: Any, given: dict) -> dict:
        doubled = {key: {**values, name: 2 * values[name]} for key, values in given["state"].items()}
        return {**given, "state": doubled}

    seen: list[Tensor] = []
    weight = model[0].weight
    optimizer.register_load_state_dict_pre_hook(double)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.state[weight][name].clone()))
    optimizer.load_state_dict(copy.deepcopy(state))
    assert seen[0].any()
    torch.testing.assert_close(seen[0], 2 * state["state"][0][name], rtol=0, atol=0)
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1  # ours do not stay
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 1


def test_hooks_are_not_copied_and_an_error_leaves_none_behind(kind) -> None:
    model, optimizer = made(kind)
    with pytest.raises(ValueError, match="no 'state'"):
        optimizer.load_state_dict({})
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks
    optimizer.register_step_pre_hook(lambda *_: pytest.fail("called"))
    other, again = copy.deepcopy((model, optimizer))
    train(other, again, range(1))
