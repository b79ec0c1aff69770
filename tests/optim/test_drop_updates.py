"""SparseSGD with drop="updates": all gradients of the selected entries enter the momenta, kept entries move."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import TABLE, give_gradients, kept_mask, network, selected, train
from torch import nn

from mist_ext.optim import InBackward, LargestGradientSGD, SparseExchange, SparseSGD
from mist_ext.selection import Selection

MOMENTUM, LR, DECAY = np.float32(0.9), np.float32(0.1), np.float32(0.01)


def optimizer_of(model: nn.Module, **options: Any) -> SparseSGD:
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "keep": 0.3, "seed": 7, "drop": "updates", **options}
    return SparseSGD(model.named_parameters(), selected(model), **options)


def test_momenta_take_every_gradient_and_kept_entries_move(device, same_bits) -> None:
    """Against numpy, a whole tensor at a time."""
    model = network(device=device)
    selection = selected(model)
    code = {"0.weight": torch.arange(selection.count("0.weight"), dtype=torch.uint8)}
    optimizer = optimizer_of(model, step=100, scale_code=code, scale_table=TABLE)
    values = {name: p.detach().cpu().numpy().ravel().copy() for name, p in model.named_parameters()}
    momenta = {name: np.zeros(selection.count(name), np.float32) for name in selection}
    for step in range(6):
        train(model, optimizer, range(step, step + 1))
        for name, p in model.named_parameters():
            at = np.arange(p.numel()) if selection[name] is None else selection[name].numpy()
            g = p.grad.cpu().numpy().ravel()[at]
            if name in code:
                g = g * TABLE.numpy()[code[name].numpy()]
            momenta[name] = MOMENTUM * momenta[name] + (g + DECAY * values[name][at])
            kept = kept_mask(selection, name, 0.3, 7, 100 + step).numpy().ravel()[at]
            values[name][at[kept]] -= LR * momenta[name][kept]
            assert 0 < kept.sum() < len(kept) or len(kept) < 20
            assert same_bits(p, torch.from_numpy(values[name]).view(p.shape))
            assert same_bits(optimizer.state[p]["momentum"], torch.from_numpy(momenta[name]))
    assert optimizer.steps == 106


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_everything_is_kept_nothing_is_dropped(device, dtype, same_bits) -> None:
    ours, theirs = network(dtype, device), network(dtype, device)
    train(ours, optimizer_of(ours, keep=1.0), range(5))
    train(theirs, optimizer_of(theirs, keep=1.0, drop="gradients"), range(5))
    assert all(same_bits(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_without_momentum_an_update_is_its_gradient(device, same_bits) -> None:
    ours, theirs = network(device=device), network(device=device)
    train(ours, optimizer_of(ours, momentum=0.0), range(5))
    train(theirs, optimizer_of(theirs, momentum=0.0, drop="gradients"), range(5))
    assert all(same_bits(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_step_changes_as_many_entries_as_dropped_gradients_do(device) -> None:
    model = network(device=device)
    optimizer = optimizer_of(model)
    train(model, optimizer, range(3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, range(3, 4))
    for name, p in model.named_parameters():
        kept = kept_mask(selected(model), name, 0.3, 7, 3)
        assert torch.equal((p != before[name]).cpu(), kept)


def test_updating_in_backward_and_going_on_give_the_same_bits(same_bits) -> None:
    def steps(model: nn.Module, optimizer: SparseSGD, numbers: range, early: bool) -> None:
        for number in numbers:
            loss = model(torch.randn(8, 12, generator=torch.Generator().manual_seed(number))).square().mean()
            if early:
                with InBackward(optimizer):
                    loss.backward()
                    optimizer.step()
            else:
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()

    whole, parts = network(), network()
    steps(whole, optimizer_of(whole), range(6), early=False)
    first = optimizer_of(parts)
    steps(parts, first, range(3), early=True)
    again = optimizer_of(parts, drop="gradients")  # becomes what the state says, as other options do
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    assert again.param_groups[0]["drop"] == "updates"
    steps(parts, again, range(3, 6), early=True)
    assert all(same_bits(p, q) for p, q in zip(whole.parameters(), parts.parameters(), strict=True))


def test_infinities_that_a_grad_scaler_found_change_nothing(device, same_bits) -> None:
    model = network(device=device)
    optimizer = optimizer_of(model)
    train(model, optimizer, range(2))
    before = [p.detach().clone() for p in model.parameters()]
    momenta = [optimizer.state[p]["momentum"].clone() for p in model.parameters()]
    give_gradients(model, 5)
    optimizer.found_inf, optimizer.grad_scale = (torch.full((), x, device=device) for x in (1.0, 8.0))
    optimizer.step()
    assert optimizer.steps == 2
    assert all(same_bits(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(same_bits(optimizer.state[p]["momentum"], m) for p, m in zip(model.parameters(), momenta, strict=True))
    optimizer.found_inf.zero_()
    optimizer.step()
    assert optimizer.steps == 3
    assert not same_bits(next(iter(model.parameters())), before[0])


def test_scaled_gradients_are_divided_before_they_enter(same_bits) -> None:
    ours, theirs = network(), network()
    plain, scaled = optimizer_of(ours), optimizer_of(theirs)
    scaled.grad_scale = torch.tensor(8.0)
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for p in theirs.parameters():
            p.grad *= 8
        plain.step()
        scaled.step()
    assert all(same_bits(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_step_that_is_refused_leaves_the_momenta() -> None:
    model = network()
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["lr"] = torch.tensor([0.1, 0.2])
    give_gradients(model, 0)
    with pytest.raises(RuntimeError, match="lr"):
        optimizer.step()
    assert not any(optimizer.state[p]["momentum"].any() for p in model.parameters())


def test_what_cannot_be_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"drop is 'all', expected 'gradients' or 'updates'"):
        optimizer_of(model, drop="all")
    with pytest.raises(ValueError, match=r"drop is 'updates', expected 'gradients'$"):
        LargestGradientSGD(model.named_parameters(), Selection.whole(model.named_parameters()), drop="updates")
    with pytest.raises(ValueError, match="SparseSGD needs dense gradients here, of which an exchange keeps few"):
        SparseExchange(optimizer_of(model))
