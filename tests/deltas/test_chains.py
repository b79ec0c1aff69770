"""Chains: joined bit for bit, and moved to one base."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tuned_models import chain_of_tasks, vit

from mist_ext.deltas import TaskDelta, state_digest
from mist_ext.deltas.chains import compose, rebase
from mist_ext.deltas.change import Change
from mist_ext.deltas.merging import merge

MODELS, CHAIN = chain_of_tasks(3)


def test_a_chain_is_one_delta_bit_for_bit() -> None:
    joined = compose(CHAIN)
    direct = TaskDelta.between(MODELS[0], MODELS[-1])
    assert (joined.base_digest, joined.result_digest) == (direct.base_digest, direct.result_digest)
    assert joined.changes.keys() == direct.changes.keys()
    assert all(change.same(direct.changes[name]) for name, change in joined.changes.items())
    model = copy.deepcopy(MODELS[0])
    joined.apply_(model)
    assert state_digest(model) == state_digest(MODELS[-1])
    joined.undo_(model)
    assert state_digest(model) == state_digest(MODELS[0])


def test_what_is_taken_back_is_not_in_it() -> None:
    back = TaskDelta.between(MODELS[1], MODELS[0])
    assert not compose([CHAIN[0], back]).changes
    assert compose([CHAIN[0]]).changes.keys() == CHAIN[0].changes.keys()


def test_one_that_is_forward_only_makes_all_of_it_so() -> None:
    forward = TaskDelta.between(MODELS[1], MODELS[2], forward_only=True)
    joined = compose([CHAIN[0], forward])
    assert joined.forward_only
    model = copy.deepcopy(MODELS[0])
    joined.apply_(model)
    assert state_digest(model) == state_digest(MODELS[2])


@pytest.mark.parametrize("function", [compose, rebase])
def test_what_is_no_chain_is_refused(function: Callable) -> None:
    with pytest.raises(ValueError, match="delta 2 does not begin where delta 1 ends: its base is"):
        function([CHAIN[0], CHAIN[2]])
    with pytest.raises(ValueError, match="there is no delta"):
        function([])


def test_a_task_moved_to_the_first_base_adds_what_it_added() -> None:
    base = {name: value.double() for name, value in MODELS[0].state_dict().items()}
    for number, delta in enumerate(rebase(CHAIN)):
        assert delta.base_digest == CHAIN[0].base_digest
        model = copy.deepcopy(MODELS[0])
        delta.apply_(model)
        before, after = (MODELS[number + i].state_dict() for i in (0, 1))
        for name, value in model.state_dict().items():
            added = after[name].double() - before[name].double()
            assert torch.equal(value, (base[name] + added).float()), name


def test_all_moved_tasks_together_are_the_chain() -> None:
    model = copy.deepcopy(MODELS[0])
    merge(rebase(CHAIN)).apply_(model)
    for ours, theirs in zip(model.parameters(), MODELS[-1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=3e-7, atol=1e-8)


def test_a_middle_task_is_taken_out_by_merging_the_others() -> None:
    """Where no other task has touched what it changed, those entries are again what they were."""
    moved = rebase(CHAIN)
    model = copy.deepcopy(MODELS[0])
    merge([moved[0], moved[2]]).apply_(model)
    state, base = model.state_dict(), vit().state_dict()
    own = 0
    for name, change in CHAIN[1].changes.items():
        touched = torch.zeros(change.numel, dtype=torch.bool)
        for delta in (CHAIN[0], CHAIN[2]):
            if name in delta.changes:
                positions = delta.changes[name].positions
                touched[slice(None) if positions is None else positions.long()] = True
        alone = ~touched
        assert torch.equal(state[name].flatten()[alone], base[name].flatten()[alone])
        own += int((MODELS[-1].state_dict()[name].flatten()[alone] != base[name].flatten()[alone]).sum())
    assert own > 100


def test_integers_that_two_tasks_change_have_no_other_base() -> None:
    def count(old: int, new: int, base: str, result: str) -> TaskDelta:
        return TaskDelta({"n": Change((), torch.int64, None, torch.tensor(old), torch.tensor(new))}, base, result)

    chain = [count(0, 2, "a", "b"), count(2, 3, "b", "c")]
    assert compose(chain).changes["n"].new == 3
    with pytest.raises(ValueError, match=r"delta 2 changes 'n', of torch\.int64"):
        rebase(chain)
