"""Gradients of every origin: of several backward passes, clipped, of tied weights, of other devices and streams."""

from __future__ import annotations

import pytest
import torch
from small_networks import assert_same, give_gradients, network, selected, train
from torch import nn

from mist_ext.optim import SparseSGD
from mist_ext.selection import Selection


def test_gradients_of_several_backward_passes_add_up(kind, device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        parts = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(step)).to(device)
        for part in parts:
            models[0](part).square().mean().backward()
        for p, q in zip(*(m.parameters() for m in models), strict=True):
            terms = [torch.autograd.grad(models[0](part).square().mean(), p)[0] for part in parts]
            torch.testing.assert_close(p.grad, sum(terms))
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_same(*models, same_bits)
    assert not torch.equal(models[0][0].weight, network(device=device)[0].weight)


def test_gradients_need_not_be_contiguous(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        for p in models[1].parameters():
            p.grad = torch.stack([p.grad, p.grad], dim=-1)[..., 0]
            assert not p.grad.is_contiguous()
        for optimizer in optimizers:
            optimizer.step()
    assert_same(*models, same_bits)


def test_a_sparse_tensor_as_gradient_is_refused(kind) -> None:
    model = nn.Embedding(8, 3, sparse=True)
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    model(torch.tensor([2])).sum().backward()
    with pytest.raises(RuntimeError, match="the gradient of 'weight' is a sparse tensor, expected a dense one"):
        optimizer.step()


def test_clipping_by_the_global_norm_scales_what_a_step_takes(device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    clipped, scaled = (SparseSGD(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        norm = float(nn.utils.clip_grad_norm_(models[0].parameters(), 0.5))
        assert norm > 1  # so that it does something
        for p in models[1].parameters():
            p.grad *= 0.5 / (norm + 1e-6)
        clipped.step()
        scaled.step()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    assert not torch.equal(models[0][0].weight, network(device=device)[0].weight)


def test_tied_weights_are_one_parameter_with_one_gradient(kind, device, same_bits) -> None:
    """A layer under two names: `named_parameters` gives the first, whose gradient is the sum over both uses."""

    def tied() -> nn.Module:
        torch.manual_seed(0)
        model = nn.ModuleDict({"first": nn.Linear(6, 6), "last": nn.Linear(6, 6)}).to(device)
        model["last"].weight = model["first"].weight
        return model

    models = [tied() for _ in range(2)]
    x = torch.ones(2, 6, device=device)
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    assert "last.weight" not in optimizers[0].selection
    for _ in range(3):
        models[0]["last"](models[0]["first"](x)).square().mean().backward()
        loss = models[1]["last"](models[1]["first"](x)).square().mean()
        for p, gradient in zip(models[1].parameters(), torch.autograd.grad(loss, models[1].parameters()), strict=True):
            p.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q)
    assert models[0]["first"].weight is models[0]["last"].weight
    assert not torch.equal(models[0]["first"].weight, tied()["first"].weight)


def test_a_parameter_under_two_names_is_refused(kind) -> None:
    layer = nn.Linear(6, 6)
    pairs = [("first.weight", layer.weight), ("last.weight", layer.weight)]
    with pytest.raises(ValueError, match=r"'first.weight' and 'last.weight' are the same parameter \(tied weights\)"):
        kind.sparse(pairs, Selection.whole(pairs))


def test_a_group_on_several_devices_is_refused_with_what_to_do(kind) -> None:
    pairs = [("a", nn.Parameter(torch.zeros(3))), ("b", nn.Parameter(torch.zeros(3, device="meta")))]
    selection = Selection({"a": None, "b": None}, {"a": (3,), "b": (3,)})
    with pytest.raises(
        ValueError, match=r"'b' is on meta, but 'a' of the same group is on cpu; make a parameter group"
    ):
        kind.sparse(pairs, selection)


@pytest.mark.gpu
def test_groups_on_several_devices_take_the_steps_of_one(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    models[1][2].cuda()
    named = list(models[1].named_parameters())
    groups = [{"params": named[:4]}, {"params": named[4:]}]
    one = kind.sparse(models[0].named_parameters(), selected(models[0]), lr=0.1, keep=0.5)
    several = kind.sparse(groups, selected(models[0]), lr=0.1, keep=0.5)
    train(models[0], one, range(5))
    train(models[1], several, range(5))
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        assert same_bits(p, q.cpu())


@pytest.mark.gpu
def test_gradients_from_another_stream_are_waited_for(kind) -> None:
    """Backward on a stream of its own, and the step on the current one as soon as that is told to wait."""
    models = [network(device="cuda") for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=1) for m in models]
    side = torch.cuda.Stream()
    for step in range(5):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(step)).cuda()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.ones(4096, 4096, device="cuda").matmul(torch.ones(4096, 4096, device="cuda"))  # it lags behind
            models[0](x).square().mean().backward()
        torch.cuda.current_stream().wait_stream(side)
        models[1](x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
