"""Autograd is told of what the ops write, and what torch refuses to change in place is refused, changing nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from right_calls import OPS, arguments, function
from torch import Tensor, nn

from mist_ext import InBackward, MaskedGradient, Selection, SparseAdamW, SparseSGD
from mist_ext.kernels import compiled, ops

WRITTEN = {
    "accumulate_": ("score",),
    "drop_apply_sgd_": ("param", "momentum_buffer", "master"),
    "drop_apply_adamw_": ("param", "exp_avg", "exp_avg_sq", "updates", "master"),
    "mask_": ("grad",),
    "pack_": ("packed",),
    "sampled_weight_grad_": ("packed",),
    "write_values_": ("param",),
}
WRITING = [op for op in OPS if op.partition(",")[0] in WRITTEN]


@pytest.fixture(params=["compiled", "fallback"], autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels, and plain PyTorch as where nothing was compiled."""
    if request.param == "fallback":
        monkeypatch.setattr(compiled, "available", lambda device: False)
    elif compiled.C is None:
        pytest.skip("needs compiled kernels")
    return request.param


def lists(made: dict[str, Any], names: tuple[str, ...]) -> dict[str, list[Tensor]]:
    return {name: made[name] if isinstance(made[name], list) else [made[name]] for name in names}


def written(op: str) -> tuple[str, ...]:
    return WRITTEN[op.partition(",")[0]]


@pytest.mark.parametrize("op", WRITING)
def test_the_version_of_all_that_is_written_is_raised_and_no_other(op: str, device, implementation: str) -> None:
    made = arguments(op, device)
    every = lists(made, tuple(name for name, value in made.items() if isinstance(value, list | Tensor)))
    before = {name: [t._version if isinstance(t, Tensor) else 0 for t in values] for name, values in every.items()}
    function(ops, op)(**made)
    for name, values in every.items():
        raised = [t._version - v for t, v in zip(values, before[name], strict=True) if isinstance(t, Tensor)]
        if name not in written(op):
            assert not any(raised), name
        elif implementation == "compiled":
            assert raised == [1] * len(values), name
        else:  # torch's own in-place functions raise it too
            assert min(raised) >= 1, name


@pytest.mark.parametrize("op", WRITING)
def test_a_call_that_is_refused_raises_no_version(op: str, device) -> None:
    made = arguments(op, device)
    made[{"accumulate_": "grad", "write_values_": "value"}.get(op, "ordinal")] = []
    before = [t._version for values in lists(made, written(op)).values() for t in values]
    with pytest.raises(RuntimeError, match="has 0 tensors"):
        function(ops, op)(**made)
    assert before == [t._version for values in lists(made, written(op)).values() for t in values]


def changed(made: dict[str, Any], name: str, change: Callable[[Tensor], Tensor]) -> None:
    if isinstance(made[name], list):
        made[name][0] = change(made[name][0])
    else:
        made[name] = change(made[name])


def leaf(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_()


def view_of_a_leaf(tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor).view(tensor.shape)


def view_without_grad(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.Parameter(tensor).view(tensor.shape)


def computed(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_() * 1


RECORDED = [leaf, view_of_a_leaf, view_without_grad, computed]


@pytest.mark.parametrize("made_by", RECORDED, ids=lambda made_by: made_by.__name__)
@pytest.mark.parametrize("op", WRITING)
def test_what_requires_grad_is_refused_while_autograd_records(op: str, made_by: Callable, device, same_bits) -> None:
    for name in written(op):
        made = arguments(op, device)
        if not lists(made, (name,))[name][0].is_floating_point():
            continue
        changed(made, name, made_by)
        tensors = [t for values in lists(made, written(op)).values() for t in values]
        before = [t.detach().clone() for t in tensors]
        place = name if name == "packed" else rf"{name}\[0\]"
        with pytest.raises(RuntimeError, match=rf"{place} requires grad .* call it under torch\.no_grad\(\)"):
            function(ops, op)(**made)
        assert all(same_bits(a, b) for a, b in zip(before, tensors, strict=True))
        with torch.no_grad():
            function(ops, op)(**made)
        assert not all(same_bits(a, b) for a, b in zip(before, tensors, strict=True))


@pytest.mark.parametrize("op", WRITING)
def test_inference_tensors_are_refused_outside_of_inference_mode(op: str, device, same_bits) -> None:
    with torch.inference_mode():
        made_there = arguments(op, device)
    for name in written(op):
        made = arguments(op, device)
        made[name] = made_there[name]
        tensors = [t for values in lists(made, written(op)).values() for t in values]
        before = [t.clone() for t in tensors]
        with pytest.raises(RuntimeError, match=rf"{name}\S* is an inference tensor.* or pass a clone"):
            function(ops, op)(**made)
        assert all(same_bits(a, b) for a, b in zip(before, tensors, strict=True))
        with torch.inference_mode():
            function(ops, op)(**made)


def test_an_optimiser_of_an_inference_tensor_is_refused(device) -> None:
    model = layers(device)
    with torch.inference_mode():
        model[2].bias = nn.Parameter(torch.zeros(2, device=device))
    with pytest.raises(ValueError, match=r"'2\.bias' was made under torch\.inference_mode\(\)"):
        SparseSGD(model.named_parameters(), whole(model))


def test_a_gradient_that_requires_grad_gives_a_result_that_does_not(device) -> None:
    score, grad = torch.zeros(4, device=device), torch.ones(4, device=device, requires_grad=True)
    ops.accumulate_([score], [grad])
    assert score.tolist() == [1, 1, 1, 1]
    assert not score.requires_grad


OPTIMIZERS = {
    "SparseSGD": lambda model: SparseSGD(model.named_parameters(), whole(model), keep=1.0),
    "SparseAdamW": lambda model: SparseAdamW(model.named_parameters(), whole(model), keep=1.0),
    "torch.optim.SGD": lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
}


def whole(model: nn.Module) -> Selection:
    return Selection.whole(model.named_parameters())


def layers(device: torch.device) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(device)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_between_forward_and_backward_is_an_error_of_backward(make: Callable, device) -> None:
    model = layers(device)
    optimizer = make(model)
    model(torch.ones(5, 3, device=device)).sum().backward()
    loss = model(torch.ones(5, 3, device=device)).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Twice(nn.Module):
    """Uses the second layer's weight again, without a gradient, where backward comes after that of the layer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) @ self.second.weight.detach())


@contextmanager
def torch_in_backward(model: nn.Module) -> Iterator[None]:
    """How torch's documentation takes optimiser steps in backward."""
    optimizers = {p: torch.optim.SGD([p], lr=1e-3) for p in model.parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    yield


IN_BACKWARD = {
    "ours": lambda model: InBackward(SparseSGD(model.named_parameters(), whole(model), keep=1.0)),
    "torch's": torch_in_backward,
}


@pytest.mark.parametrize("steps", IN_BACKWARD.values(), ids=IN_BACKWARD)
def test_a_weight_that_backward_still_needs_is_an_error_of_backward(steps: Callable, device) -> None:
    model = Twice().to(device)
    loss = model(torch.ones(5, 4, device=device)).square().sum()
    with steps(model), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_masking_a_gradient_that_a_second_backward_needs_is_an_error_of_it(device) -> None:
    model = layers(device)
    model(torch.ones(5, 3, device=device)).square().sum().backward(create_graph=True)
    penalty = sum(p.grad.square().sum() for p in model.parameters())
    MaskedGradient(model.named_parameters(), whole(model), keep=0.5).apply_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        penalty.backward()


def test_a_compiled_call_raises_the_version_too(device, implementation: str) -> None:
    if implementation == "fallback":
        pytest.skip("the fallback is plain PyTorch, whose random draws on the host are not compiled")
    step = torch.tensor(0, device=device)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def masked(grad: Tensor) -> Tensor:
        ops.mask_([grad], [None], [], None, [0], threshold=0, seed=0, step=step)
        return grad + 1

    grad = torch.ones(8, device=device)
    assert masked(grad).tolist() == [1] * 8
    assert grad.tolist() == [0] * 8
    assert grad._version >= 1
