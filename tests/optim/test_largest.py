"""SGD for each step's largest gradients, against a loop over dense tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mist_ext.indices import selected_count
from mist_ext.optim import InBackward, LargestGradientSGD
from mist_ext.selection import Selection


def model(dtype: torch.dtype, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 7)).to(device, dtype)


def optimizer_of(m: nn.Module, **options: float) -> LargestGradientSGD:
    first, rest = list(m.named_parameters())[:2], list(m.named_parameters())[2:]
    groups = [{"params": first, "rate": 0.1}, {"params": rest, "rate": 0.3}]
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "keep": 1.0, **options}
    return LargestGradientSGD(groups, Selection.whole(m.named_parameters()), **settings)


def loss_of(m: nn.Module, step: int) -> Tensor:
    p = next(m.parameters())
    x = torch.randn(8, 30, generator=torch.Generator().manual_seed(step)).to(p.device, p.dtype)
    return m(x).float().pow(2).mean()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_moves_the_largest_gradients_alone(device: torch.device, dtype: torch.dtype, momentum: float) -> None:
    ours = model(dtype, device)
    optimizer = optimizer_of(ours, momentum=momentum)
    masters = {name: p.detach().double() for name, p in ours.named_parameters()}
    buffers = {name: torch.zeros_like(value) for name, value in masters.items()}
    for step in range(6):
        loss_of(ours, step).backward()
        for number, (name, p) in enumerate(ours.named_parameters()):
            g = p.grad.double().flatten()
            k = selected_count(p.numel(), 0.1 if number < 2 else 0.3)
            order = g.abs().sort(descending=True, stable=True).indices[:k]  # ties by lowest position
            w, b = masters[name].view(-1), buffers[name].view(-1)
            b[order] = momentum * b[order] + g[order] + 0.01 * w[order]
            w[order] -= 0.05 * b[order]
        optimizer.step()
        for name, p in ours.named_parameters():
            state = optimizer.state[p]
            torch.testing.assert_close(state.get("master", p).double().flatten(), masters[name].flatten())
            if momentum:
                torch.testing.assert_close(state["momentum"].double(), buffers[name].flatten())
        optimizer.zero_grad()


def test_entries_that_are_passed_over_keep_bits_and_momentum(device: torch.device, same_bits: Callable) -> None:
    ours = model(torch.float32, device)
    optimizer = optimizer_of(ours)
    for step in range(5):
        before = {n: (p.detach().clone(), optimizer.state[p]["momentum"].clone()) for n, p in ours.named_parameters()}
        loss_of(ours, step).backward()
        chosen = {}
        for number, (name, p) in enumerate(ours.named_parameters()):
            chosen[name] = p.grad.abs().flatten().topk(selected_count(p.numel(), 0.1 if number < 2 else 0.3)).indices
        optimizer.step()
        optimizer.zero_grad()
        for name, p in ours.named_parameters():
            others = torch.ones(p.numel(), dtype=torch.bool, device=device)
            others[chosen[name]] = False
            assert same_bits(p.detach().flatten()[others], before[name][0].flatten()[others])
            assert same_bits(optimizer.state[p]["momentum"][others], before[name][1][others])
            assert (p.detach().flatten()[~others] != before[name][0].flatten()[~others]).any()


def test_stepping_in_backward_and_going_on_from_a_state_give_the_same_bits(
    device: torch.device, dtype: torch.dtype, same_bits: Callable
) -> None:
    plain, within, resumed = (model(dtype, device) for _ in range(3))
    optimizers = [optimizer_of(m) for m in (plain, within, resumed)]
    for step in range(4):
        loss_of(plain, step).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
    with InBackward(optimizers[1]):
        for step in range(4):
            loss_of(within, step).backward()
            optimizers[1].step()
    for step in range(4):
        loss_of(resumed, step).backward()
        optimizers[2].step()
        optimizers[2].zero_grad()
        state = copy.deepcopy(optimizers[2].state_dict())
        optimizers[2] = optimizer_of(resumed)
        optimizers[2].load_state_dict(state)
    for p, q, r in zip(plain.parameters(), within.parameters(), resumed.parameters(), strict=True):
        assert same_bits(p, q)
        assert same_bits(p, r)


def test_a_gradient_that_is_no_number_is_named(device: torch.device) -> None:
    ours = model(torch.float32, device)
    optimizer = optimizer_of(ours)
    loss_of(ours, 0).backward()
    ours[0].weight.grad[3, 3] = torch.nan
    with pytest.raises(RuntimeError, match=re.escape("score[0] ('0.weight') is NaN")):
        optimizer.step()
