"""What works on sampled gradients between backward and step: accumulation, clipping, GradScaler, zeroing, loading."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from sampling import assert_kept, exact, sparse
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from vision_networks import loss_of, vit

from mist_ext import SampledGradients
from mist_ext.optim.kept_gradient import KeptGradient


def losses(model: nn.Module, steps: range) -> Tensor:
    return sum(loss_of(model, step) for step in steps)  # type: ignore[return-value]


def vectors(model: nn.Module) -> list[Tensor]:
    """What there is of each gradient."""
    return [p.grad.entries.vector if isinstance(p.grad, KeptGradient) else p.grad for p in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_several_backward_passes_add_up(dtype) -> None:
    model = vit(dtype)
    optimizer = sparse(model)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    with SampledGradients(optimizer, model):
        for step in range(2):
            expected = exact(model, partial(losses, steps=range(3 * step, 3 * step + 3)))
            for part in range(3):
                loss_of(model, 3 * step + part).backward()
            assert len(assert_kept(model, optimizer, expected, tolerance)) == 14
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("foreach", [True, False, None])
@pytest.mark.parametrize("order", [2.0, 1.0, float("inf")])
def test_clipping_scales_by_the_norm_of_what_is_kept(order, foreach) -> None:
    model = vit()
    optimizer = sparse(model)
    with SampledGradients(optimizer, model):
        loss_of(model, 0).backward()
        before = [vector.clone() for vector in vectors(model)]
        norm = torch.linalg.vector_norm(torch.cat([v.flatten() for v in before]).double(), order).float()
        given = get_total_norm([p.grad for p in model.parameters()], order, foreach=foreach)
        clipped = clip_grad_norm_(model.parameters(), 1e-3, order, foreach=foreach)
        assert type(given) is type(clipped) is Tensor
        torch.testing.assert_close(torch.stack([given, clipped]), norm.expand(2), rtol=1e-5, atol=0)
        for vector, was in zip(vectors(model), before, strict=True):
            torch.testing.assert_close(vector, was * (1e-3 / norm), rtol=1e-4, atol=0)


def test_the_norm_of_nothing_kept_is_zero() -> None:
    model = nn.Linear(4, 4)
    optimizer = sparse(model, keep=0.0)
    with SampledGradients(optimizer, model):
        model(torch.ones(2, 4)).sum().backward()
        assert model.weight.grad.norm() == model.weight.grad.norm(float("inf")) == 0
        optimizer.step()


def test_a_16_bit_gradient_has_a_norm_of_its_dtype() -> None:
    model = vit(torch.bfloat16)
    optimizer = sparse(model)
    with SampledGradients(optimizer, model):
        loss_of(model, 0).backward()
        assert {p.grad.norm().dtype for p in model.parameters()} == {torch.bfloat16}
        assert clip_grad_norm_(model.parameters(), 1e-3).dtype == torch.bfloat16
        optimizer.step()


def test_grad_scaler_skips_an_infinite_step_and_draws_it_again() -> None:
    """The steps are those without a scaler, with one in the middle that overflows."""
    models = [vit() for _ in range(2)]
    scaled, plain = (sparse(model) for model in models)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=100)
    with SampledGradients(scaled, models[0]), SampledGradients(plain, models[1]):
        for step in range(4):
            scaler.scale(loss_of(models[0], step)).backward()
            infinite = step == 1
            if infinite:
                models[0].blocks[1].mlp.fc1.weight.grad.entries.vector[3] = float("inf")
            if step == 2:
                scaler.unscale_(scaled)
                clip_grad_norm_(models[0].parameters(), 1e-2)
            scaler.step(scaled)
            scaler.update()
            scaled.zero_grad()
            if not infinite:
                loss_of(models[1], step).backward()
                if step == 2:
                    clip_grad_norm_(models[1].parameters(), 1e-2)
                plain.step()
                plain.zero_grad()
    assert scaled.steps == plain.steps == 3
    assert scaler.get_scale() == 2.0**9
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("of", ["model", "optimizer"])
def test_zeroed_gradients_serve_any_step(of, foreach) -> None:
    model = vit()
    optimizer = sparse(model)
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    with SampledGradients(optimizer, model):
        for step in range(3):
            expected = exact(model, partial(loss_of, step=step))
            loss_of(model, step).backward()
            assert len(assert_kept(model, optimizer, expected)) == 14
            optimizer.step()
            {"model": model, "optimizer": optimizer}[of].zero_grad(set_to_none=False)
            assert all(not vector.any() for vector in vectors(model))
        other, theirs = copy.deepcopy(model), None
        theirs = sparse(other)
        theirs.load_state_dict(optimizer.state_dict())
        for p in other.parameters():
            p.grad = torch.zeros_like(p)
        theirs.step()
        optimizer.step()  # by gradients of zero, as any optimiser does
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_loaded_state_draws_its_own_step() -> None:
    def run(model: nn.Module, optimizer: Any, steps: range) -> None:
        for step in steps:
            loss_of(model, step).backward()
            optimizer.step()
            optimizer.zero_grad()

    model = vit()
    optimizer = sparse(model, lr=0.1)
    with SampledGradients(optimizer, model):
        run(model, optimizer, range(2))
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        run(model, optimizer, range(2, 5))
        ended = copy.deepcopy(model.state_dict())
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        assert optimizer.steps == 2
        run(model, optimizer, range(2, 4))
    with SampledGradients(optimizer, model):
        run(model, optimizer, range(4, 5))
    assert all(torch.equal(value, ended[name]) for name, value in model.state_dict().items())


def test_keep_may_change_between_steps() -> None:
    model = vit()
    optimizer = sparse(model, keep=0.1)
    with SampledGradients(optimizer, model):
        for step, keep in enumerate((0.1, 0.8, 0.3, 0.8)):
            optimizer.param_groups[0]["keep"] = keep
            expected = exact(model, partial(loss_of, step=step))
            loss_of(model, step).backward()
            assert len(assert_kept(model, optimizer, expected)) == 14
            optimizer.step()
            optimizer.zero_grad()


def test_a_closure_may_go_backward_within_the_step() -> None:
    model = vit()
    optimizer = sparse(model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        return loss

    with SampledGradients(optimizer, model):
        first, _, last = (optimizer.step(closure) for _ in range(3))
    assert last < first
    assert optimizer.steps == 3
