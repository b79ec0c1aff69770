"""SampledGradients in training loops that do more than forward, backward and step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sampling import assert_kept, exact, sparse
from torch import Tensor, nn
from torch.autograd import forward_ad

from mist_ext import SampledGradients
from mist_ext.optim.kept_gradient import KeptGradient

X = torch.linspace(-1, 1, 18).view(3, 6)


def small() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    return model, sparse(model)


def refused(match: str) -> Any:
    return pytest.raises(RuntimeError, match=match)


def dual(model: Callable[[Tensor], Tensor]) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(X, torch.ones_like(X)))).tangent


@pytest.mark.parametrize(
    "use",
    [
        lambda model: torch.vmap(model)(X),
        lambda model: torch.func.jvp(model, (X,), (torch.ones_like(X),))[1],
        lambda model: torch.func.jacrev(model)(X[0]),
        lambda model: torch.func.grad(lambda x: model(x).square().sum())(X),
        lambda model: torch.autograd.functional.jacobian(model, X[0]),
        dual,
    ],
    ids=["vmap", "jvp", "jacrev", "grad", "jacobian", "dual"],
)
def test_transforms_of_functions_give_what_they_give_without(use: Callable[[nn.Module], Tensor]) -> None:
    model, optimizer = small()
    expected = use(model)
    with SampledGradients(optimizer, model):
        torch.testing.assert_close(use(model), expected)
        model(X).sum().backward()
        optimizer.step()
    assert optimizer.steps == 1


def test_gradients_through_vmap_are_dense() -> None:
    model, optimizer = small()
    expected = exact(model, lambda m: m(X.to(m[0].weight.dtype)).sum())
    with SampledGradients(optimizer, model):
        torch.vmap(model)(X).sum().backward()
        assert assert_kept(model, optimizer, expected) == []
        optimizer.step()


def test_a_sparse_input_has_a_dense_gradient() -> None:
    layer = nn.Linear(6, 4)
    optimizer = sparse(layer)
    expected = exact(layer, lambda m: m(X.to(m.weight.dtype)).square().sum())
    with SampledGradients(optimizer, layer):
        layer(X.to_sparse()).square().sum().backward()
        assert assert_kept(layer, optimizer, expected) == []


def strided_loss(model: nn.Module) -> Tensor:
    """A loss whose layers are given columns, images in channels_last, and gradients that repeat one number."""
    images = torch.linspace(-1, 1, 96, dtype=model[0].weight.dtype).view(2, 3, 4, 4)
    patches = model[0](images.to(memory_format=torch.channels_last)).flatten(2).mT
    return model[1](patches).sum()


def test_operands_of_any_strides() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.Linear(5, 4))
    optimizer = sparse(model)
    expected = exact(model, strided_loss)
    with SampledGradients(optimizer, model):
        strided_loss(model).backward()
        assert assert_kept(model, optimizer, expected) == ["0.weight", "1.weight"]


def batches_loss(model: nn.Module) -> Tensor:
    x = X.to(model[0].weight.dtype)
    return sum(model(x[rows]).square().sum() for rows in (slice(3), slice(1), 0, slice(0)))  # type: ignore[return-value]


def test_batches_of_any_size_add_up() -> None:
    model, optimizer = small()
    expected = exact(model, batches_loss)
    with SampledGradients(optimizer, model):
        for rows in (slice(3), slice(1), 0, slice(0)):  # a vector is one token, the last batch is empty
            model(X[rows]).square().sum().backward()
        assert len(assert_kept(model, optimizer, expected)) == 2


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16])
def test_a_model_that_is_converted_meanwhile(convert: Callable[[nn.Module], nn.Module]) -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        convert(model)
        with refused("'0.weight' is torch.(float64|bfloat16) on cpu, and was torch.float32 on cpu when Sampled"):
            model(X.to(model[0].weight.dtype))
        model.float()
        model(X).sum().backward()
        optimizer.step()


def test_gradients_that_no_step_has_had_are_not_lost_by_leaving() -> None:
    model, optimizer = small()
    before = copy.deepcopy(model.state_dict())
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
    with refused("'0.weight' was sampled within SampledGradients, which was left"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimizer.zero_grad()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        optimizer.step()
    assert not isinstance(model[0].weight.grad, KeptGradient)  # which the step has had
    optimizer.zero_grad()
    model(X).sum().backward()
    optimizer.step()


def test_an_error_in_the_middle_of_backward() -> None:
    model, optimizer = small()

    def fail(*_: object) -> None:
        raise KeyError

    expected = exact(model, lambda m: m(X.to(m[0].weight.dtype)).sum())
    with SampledGradients(optimizer, model):
        handle = model[1].register_full_backward_hook(fail)
        with pytest.raises(KeyError):
            model(X).sum().backward()
        handle.remove()
        optimizer.zero_grad()
        model(X).sum().backward()
        assert len(assert_kept(model, optimizer, expected)) == 2


def test_a_kept_gradient_cannot_be_shared_by_processes() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        with refused("kept entries of the gradient of '0.weight' alone, and share_memory_ needs all"):
            model.share_memory()


class Adapted(nn.Module):
    """A frozen layer with a low-rank one beside it, and attention whose projection is another layer's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(6, 8)
        self.frozen.weight.requires_grad_(False)
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 8)
        self.attention.out_proj.weight = self.last.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(x) + self.up(self.down(x))
        return self.last(self.attention(x, x, x, need_weights=False)[0])


def adapted_loss(model: nn.Module) -> Tensor:
    return model(X[None].to(next(model.parameters()).dtype)).square().sum()


def test_low_rank_layers_are_sampled_and_what_attention_shares_is_not() -> None:
    model = Adapted()
    optimizer = sparse(model, rate=1.0)
    expected = exact(model, adapted_loss)
    with SampledGradients(optimizer, model):
        adapted_loss(model).backward()
        assert assert_kept(model, optimizer, expected) == ["down.weight", "up.weight"]
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_momenta_that_take_every_gradient_take_those_of_all_selected_entries(dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 80), nn.GELU(), nn.Linear(80, 4)).to(dtype)
    other = copy.deepcopy(model)
    ours, theirs = (sparse(m, drop="updates", momentum=0.9, weight_decay=0.01) for m in (model, other))
    began = copy.deepcopy(model.state_dict())
    with SampledGradients(ours, model):
        for step in range(4):
            for m, optimizer in ((model, ours), (other, theirs)):
                for part in (0, 1):
                    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(2 * step + part)).to(dtype)
                    m(x).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
    rounding = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, **rounding)
        momenta = (o.state[of]["momentum"] for o, of in ((ours, p), (theirs, q)))
        torch.testing.assert_close(*momenta, rtol=rounding["rtol"], atol=0.5 if dtype == torch.bfloat16 else 1e-4)
        if p.ndim == 2 and dtype == torch.float32:
            assert torch.equal(p != began[name], q != began[name]), name
