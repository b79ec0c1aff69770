"""MaskedGradient before a dense optimiser: the published dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from small_networks import TABLE, give_gradients, kept_mask, network, selected, train

from mist_ext.optim import MaskedGradient, SparseSGD


def test_masked_gradients_with_dense_sgd_are_the_published_dynamics(device: torch.device, same_bits: Callable) -> None:
    ours, theirs = network(device=device), network(device=device)
    selection = selected(ours)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    masked = MaskedGradient(ours.named_parameters(), selection, keep=0.3, seed=5, step=20)
    dense = [torch.optim.SGD(m.parameters(), **options) for m in (ours, theirs)]
    for step in range(10):
        for model in (ours, theirs):
            give_gradients(model, step)
        masked.apply_()
        for name, p in theirs.named_parameters():
            p.grad *= kept_mask(selection, name, 0.3, 5, 20 + step).to(device)
        for optimizer in dense:
            optimizer.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
            assert torch.equal(p, q)
    assert masked.steps == 30


def test_both_dynamics_keep_the_same_entries(device: torch.device) -> None:
    model = network(device=device)
    drawing: dict[str, Any] = {"selection": selected(model), "keep": 0.3, "seed": 5, "step": 9}
    code = {"2.weight": torch.full((drawing["selection"].count("2.weight"),), 3, dtype=torch.uint8)}
    drawing |= {"scale_code": code, "scale_table": TABLE}
    optimizer = SparseSGD(model.named_parameters(), **drawing, lr=1.0, momentum=0.0)
    masked = MaskedGradient(model.named_parameters(), **drawing)
    for step in range(4):
        before = [p.detach().clone() for p in model.parameters()]
        train(model, optimizer, range(step, step + 1))
        masked.apply_()
        for p, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(old - p.grad, p)
            assert p.grad.any()


def test_masked_gradients_without_some_gradients_draw_the_same_for_the_others() -> None:
    model = network()
    masked = [MaskedGradient(model.named_parameters(), selected(model), keep=0.3) for _ in range(2)]
    give_gradients(model, 0)
    masked[0].apply_()
    expected = model[2].weight.grad
    give_gradients(model, 0)
    model[0].weight.grad = None
    masked[1].apply_()
    assert torch.equal(model[2].weight.grad, expected)
    assert model[0].weight.grad is None


def test_masked_gradients_go_on_where_a_saved_one_stopped() -> None:
    model = network()
    first = MaskedGradient(model.named_parameters(), selected(model), keep=0.3)
    for step in range(3):
        give_gradients(model, step)
        first.apply_()
    second = MaskedGradient(model.named_parameters(), selected(model), keep=0.3)
    second.load_state_dict(first.state_dict())
    results = []
    for masked in (first, second):
        give_gradients(model, 3)
        masked.apply_()
        results.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
