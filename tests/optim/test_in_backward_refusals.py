"""What steps during backward refuse, since it needs all gradients after backward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from vision_networks import loss_of, pair, vit

from mist_ext.optim import InBackward, SparseSGD
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity


def test_the_context_can_be_entered_again_after_an_error() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    within = InBackward(optimizer)
    with within:
        loss_of(model, 0).backward()
        with pytest.raises(RuntimeError, match="a second backward pass"):
            loss_of(model, 1).backward()
    optimizer.zero_grad()
    with within:
        loss_of(model, 2).backward()
        optimizer.step()
    assert optimizer.steps == 1


def test_accumulation_over_several_backward_passes_is_refused() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    with InBackward(optimizer):
        loss_of(model, 0).backward()
        with pytest.raises(
            RuntimeError,
            match=r"gradient of 'head.(weight|bias)' was used.*a second backward pass before optimizer.step",
        ):
            loss_of(model, 1).backward()


def test_reentrant_checkpointing_that_splits_a_gradient_is_refused() -> None:
    """A weight that is used inside and outside of a reentrant checkpoint gets its gradient in two parts."""
    layer = nn.Linear(4, 4)
    optimizer = SparseSGD(layer.named_parameters(), Selection.whole(layer.named_parameters()))
    x = torch.ones(2, 4, requires_grad=True)
    with InBackward(optimizer), pytest.raises(RuntimeError, match="reentrant checkpointing"):
        layer(checkpoint(layer, x, use_reentrant=True)).sum().backward()


def own_norm(parameters: Iterable[Tensor], limit: float) -> Tensor:
    return torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()


def total_norm(parameters: Iterable[Tensor], limit: float) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


@pytest.mark.parametrize(
    "use",
    [torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_, total_norm, own_norm],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("steps", [0, 1], ids=["first_step", "later_step"])
def test_what_needs_gradients_after_backward_is_refused_inside_and_works_outside(use: Callable, steps: int) -> None:
    model = vit()
    other, optimizer, _ = pair(SparseSGD, model)
    loss_of(other, 0).backward()
    with InBackward(optimizer):
        for step in range(steps):
            loss_of(model, step).backward()
            optimizer.step()
        loss_of(model, steps).backward()
        with pytest.raises(RuntimeError, match=r"gradient of '.*' was used .* and freed; clipping, norms"):
            use(model.parameters(), 1.0)
        use(other.parameters(), 1e-3)  # another network's gradients are there
        optimizer.step()
        assert optimizer.steps == steps + 1
    loss_of(model, 9).backward()
    use(model.parameters(), 1.0)


@pytest.mark.parametrize("inner", ["Sensitivity", "InBackward"])
def test_two_that_take_the_same_gradients_are_refused(inner: str) -> None:
    model = vit()
    before = copy.deepcopy(model.state_dict())
    _, optimizer, _ = pair(SparseSGD, model)
    contexts = {"InBackward": InBackward(optimizer), "Sensitivity": Sensitivity(model.named_parameters())}
    second = contexts.pop(inner)
    first = contexts.popitem()[1] if inner == "Sensitivity" else Sensitivity(model.named_parameters())
    with first, pytest.raises(RuntimeError, match=r"takes the gradient of 'cls_token' already.*leave one"), second:
        loss_of(model, 0).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with second:  # once the first is left
        loss_of(model, 0).backward()


def test_a_hook_that_frees_gradients_is_told_of() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    model.norm.weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    for context in (InBackward(optimizer), Sensitivity(model.named_parameters())):
        optimizer.zero_grad()
        with context, pytest.raises(RuntimeError, match=r"'norm.weight' was gone before \w+ could take it"):
            loss_of(model, 0).backward()


def test_other_optimisers_are_refused() -> None:
    model = vit()
    with pytest.raises(TypeError, match="InBackward takes a SparseSGD or SparseAdamW, not SGD"):
        InBackward(torch.optim.SGD(model.parameters()))


def test_a_sparse_gradient_is_refused_by_name() -> None:
    layer = nn.Embedding(8, 3, sparse=True)
    optimizer = SparseSGD(layer.named_parameters(), Selection.whole(layer.named_parameters()))
    with InBackward(optimizer), pytest.raises(RuntimeError, match=r"'weight' is a sparse tensor.*sparse=False"):
        layer(torch.tensor([2])).sum().backward()


def test_a_grad_scaler_is_refused() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    scaler = torch.amp.GradScaler("cpu")
    with InBackward(optimizer):
        scaler.scale(loss_of(model, 0)).backward()
        with pytest.raises(RuntimeError, match=r"was used by an in-backward step and freed.*GradScaler"):
            scaler.step(optimizer)


def test_gradients_from_before_are_refused() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    loss_of(model, 0).backward()
    with pytest.raises(RuntimeError, match="already has a gradient"):
        InBackward(optimizer).__enter__()
    optimizer.zero_grad()
    with InBackward(optimizer):
        pass
