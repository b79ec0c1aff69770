"""What SampledGradients refuses, by the weight's name: never a wrong number."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sampling import sparse
from torch import Tensor, nn
from vision_networks import loss_of, vit

from mist_ext import InBackward, SampledGradients, Selection, Sensitivity, SparseSGD
from mist_ext.optim import LargestGradientSGD
from mist_ext.optim.kept_gradient import KeptGradient


def small() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    return model, sparse(model)


X = torch.linspace(-1, 1, 18).view(3, 6)


def refused(match: str) -> Any:
    return pytest.raises(RuntimeError, match=match)


@pytest.mark.parametrize(
    "use",
    [
        lambda g: g + 1,
        lambda g: g.abs(),
        lambda g: g.sum(),
        lambda g: g.clone(),
        lambda g: g[0],
        lambda g: g.mul_(torch.ones(8, 6)),
        lambda g: torch.linalg.vector_norm(g, dim=0),
        lambda g: torch.ones(8, 6).add_(g),
        lambda g: torch._foreach_add_([torch.ones(8, 6)], [g]),
        lambda g: g.double(),
        lambda g: copy.deepcopy(g),
    ],
)
def test_computations_with_a_kept_gradient_name_its_weight(use: Callable[[Tensor], Any]) -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        gradient = model[0].weight.grad
        before = gradient.entries.vector.clone()
        with refused("kept entries of the gradient of '0.weight' alone"):
            use(gradient)
        assert torch.equal(gradient.entries.vector, before)
        optimizer.step()


def test_other_clipping_is_refused() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        with refused("'0.weight' alone"):
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
        torch.optim.SGD(model.parameters()).zero_grad()


@pytest.mark.parametrize("first", ["layer", "function"])
def test_a_weight_that_is_used_outside_of_its_layer_too(first) -> None:
    model, optimizer = small()
    uses = {"layer": lambda: model(X).sum(), "function": lambda: F.linear(X, model[0].weight).sum()}
    before = copy.deepcopy(model.state_dict())
    with SampledGradients(optimizer, model):
        uses.pop(first)().backward()
        with refused(r"'0.weight'.*used outside of its layer too, as by F.linear\(x, layer.weight\)"):
            uses.popitem()[1]().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_gradients_of_another_step() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        optimizer.step()
        before = copy.deepcopy(model.state_dict())
        told = r"gradient of '0.weight' was sampled for step 0, and this is step 1; call optimizer.zero_grad\(\) after"
        with refused(told):
            optimizer.step()
        with refused(r"gradient of '2.weight' was sampled for step 0, and this is step 1"):
            model(X).sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        optimizer.zero_grad()
        model(X).sum().backward()
        optimizer.step()
    assert optimizer.steps == 2


def test_a_keep_that_changes_between_forward_and_step() -> None:
    for again in (False, True):
        model, optimizer = small()
        with SampledGradients(optimizer, model):
            model(X).sum().backward()
            optimizer.param_groups[0]["keep"] = 0.25
            with refused("'[02].weight' was sampled with keep at 0.5, and the keep of its group is now 0.25"):
                model(X).sum().backward() if again else optimizer.step()
            optimizer.zero_grad()
            model(X).sum().backward()
            optimizer.step()


def test_momentum_that_comes_to_need_every_gradient_between_forward_and_step() -> None:
    model, _ = small()
    optimizer = sparse(model, momentum=0.0, drop="updates")
    before = copy.deepcopy(model.state_dict())
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        optimizer.param_groups[0]["momentum"] = 0.9
        with refused("'[02].weight' was sampled with keep at 0.5, .* is now 1;"):
            optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_graph_that_was_made_before_a_step() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        loss = model(X).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()
        with refused("modified by an inplace operation"):
            loss.backward()
    first = nn.Linear(6, 4)  # of which no gradient of the input is asked for
    optimizer = sparse(first)
    with SampledGradients(optimizer, first):
        loss = first(X).sum()
        loss.backward(retain_graph=True)
        with torch.no_grad():
            first.weight.add_(1)
        with refused("modified by an inplace operation"):
            loss.backward()


def test_compiled_layers_refuse_the_same() -> None:
    model, optimizer = small()
    model.compile(backend="aot_eager", fullgraph=True)
    with SampledGradients(optimizer, model):
        old = model(X).sum()
        model(X).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with refused("modified by an inplace operation"):
            old.backward()
        optimizer.zero_grad()
        optimizer.param_groups[0]["keep"] = 0.25  # of which a compiled graph learns at the step alone
        model(X).sum().backward()
        with refused("'0.weight' was sampled with keep at 0.5, .*zero_grad.* and go through the batch again"):
            optimizer.step()
        optimizer.zero_grad()
        model(X).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model(X).sum().backward(inputs=list(model.parameters()))
        with refused("'0.weight' was computed, but not accumulated"):
            optimizer.step()
        optimizer.zero_grad()
        old = model(X).sum()
    with refused("'0.weight' ran within SampledGradients, which was left"):
        old.backward()


def test_an_input_that_was_changed_since() -> None:
    model, optimizer = small()
    x = X.clone()
    with SampledGradients(optimizer, model):
        loss = model(x).sum()
        x.add_(1)
        with refused("modified by an inplace operation"):
            loss.backward()


def test_gradients_of_gradients() -> None:
    model, optimizer = small()
    x = X.clone().requires_grad_()
    with SampledGradients(optimizer, model):
        with refused("create_graph=True asks for gradients of the gradient of '2.weight'"):
            torch.autograd.grad(model(x).sum(), x, create_graph=True)
        optimizer.zero_grad()


def test_gradients_that_are_asked_for_by_themselves() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        with refused("appears to not have been used"):
            torch.autograd.grad(model(X).sum(), [model[0].weight])
        x = X.clone().requires_grad_()
        torch.autograd.grad(model(x).square().sum(), x)  # of the input, as for an adversarial example
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        before = copy.deepcopy(model.state_dict())
        model(X).sum().backward(inputs=list(model.parameters()))
        with refused("gradient of '0.weight' was computed, but not accumulated; .* without inputs="):
            optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_backward_after_the_context_was_left() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        loss = model(X).sum()
    with refused("forward pass of '2.weight' ran within SampledGradients, which was left"):
        loss.backward()


def test_a_kept_gradient_that_outlives_the_context() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        model(X).sum().backward()
        gradient = model[0].weight.grad
    model[0].weight.grad = gradient
    with refused("'0.weight' was sampled within SampledGradients, which was left"):
        optimizer.step()


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_on_a_weight(register) -> None:
    model, optimizer = small()
    handle = getattr(model[0].weight, register)(lambda _: None)
    with refused("'0.weight' has a hook on its gradient"), SampledGradients(optimizer, model):
        pass
    handle.remove()
    with SampledGradients(optimizer, model):
        pass


def test_a_weight_that_has_a_gradient() -> None:
    model, optimizer = small()
    model(X).sum().backward()
    with refused("'0.weight' already has a gradient, which SampledGradients would take too"):
        SampledGradients(optimizer, model).__enter__()
    optimizer.zero_grad()
    with SampledGradients(optimizer, model):
        pass


@pytest.mark.parametrize("other", ["InBackward", "Sensitivity", "SampledGradients"])
@pytest.mark.parametrize("sampled_first", [True, False])
def test_two_that_take_the_same_gradients(other, sampled_first) -> None:
    model, optimizer = small()
    contexts = [
        SampledGradients(optimizer, model),
        {
            "InBackward": lambda: InBackward(optimizer),
            "Sensitivity": lambda: Sensitivity(model.named_parameters()),
            "SampledGradients": lambda: SampledGradients(sparse(model), model),
        }[other](),
    ]
    first, second = contexts if sampled_first else reversed(contexts)
    with first, refused(r"takes the gradient of '0.weight' already.*leave one"), second:
        pass
    with second:  # once the first is left
        pass
    with first:
        pass


def test_one_optimiser_in_two_contexts() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model), refused("in another SampledGradients already"):
        SampledGradients(optimizer, model[0]).__enter__()


def test_optimisers_that_need_dense_gradients() -> None:
    model, _ = small()
    named = list(model.named_parameters())
    whole = Selection.whole(named)
    with pytest.raises(ValueError, match="SGD needs dense gradients here, of which SampledGradients computes few"):
        SampledGradients(LargestGradientSGD(named, whole), model)
    with pytest.raises(TypeError, match="SampledGradients takes a SparseSGD or SparseAdamW, not SGD"):
        SampledGradients(torch.optim.SGD(model.parameters()), model)


def test_a_model_that_is_not_the_optimiser_s() -> None:
    _, optimizer = small()
    with pytest.raises(ValueError, match=r"the optimiser updates no weight of an nn.Linear of this model"):
        SampledGradients(optimizer, vit()).__enter__()


def test_after_an_error_it_can_be_entered_again() -> None:
    model, optimizer = vit(), None
    optimizer = sparse(model)
    context = SampledGradients(optimizer, model)

    def fail() -> None:
        with context:
            loss_of(model, 0).backward()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    optimizer.zero_grad()
    with context:
        loss_of(model, 0).backward()
        assert isinstance(model.head.weight.grad, KeptGradient)
        optimizer.step()


def test_another_optimiser_s_gradients_change_nothing() -> None:
    model, optimizer = small()
    named = list(model.named_parameters())
    groups = [{"params": named[1:2]}, {"params": named[:1] + named[2:]}]
    other = SparseSGD(groups, Selection.whole(named), lr=0.1)
    with SampledGradients(sparse(model[:1]), model[:1]), SampledGradients(other, model[2:]):
        model(X).sum().backward()
        before = copy.deepcopy(model.state_dict())
        for one in (optimizer, other):  # of which neither has a context that samples it
            with refused("'0.weight' was sampled within SampledGradients, which was left or is another optimiser's"):
                one.step()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_hook_that_is_registered_within_the_context() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model):
        handle = model[0].weight.register_hook(lambda gradient: None)
        model(X).sum().backward()
        with refused("'0.weight' has a hook on its gradient"):
            optimizer.step()
        handle.remove()
        optimizer.step()


def test_a_graph_whose_saved_tensors_are_copies() -> None:
    model, optimizer = small()
    with SampledGradients(optimizer, model), torch.autograd.graph.allow_mutation_on_saved_tensors():
        early, late = model(X).sum(), model(X).sum()
        early.backward()
        optimizer.step()
        optimizer.zero_grad()
        with refused("'2.weight' ran for the entries that step 0 keeps, and this is step 1; call backward"):
            late.backward()


@pytest.mark.parametrize(("dtype", "autocast"), [(torch.float64, True), (torch.int64, True), (torch.bfloat16, False)])
@pytest.mark.parametrize(
    ("layer", "x"), [(nn.Linear(6, 4), torch.ones(3, 6)), (nn.Conv2d(6, 4, 1), torch.ones(3, 6, 1, 1))]
)
def test_an_input_of_another_dtype_is_refused_as_without(layer, x, dtype, autocast) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with pytest.raises(RuntimeError) as theirs:
            layer(x.to(dtype))
        with SampledGradients(sparse(layer), layer), pytest.raises(RuntimeError) as ours:
            layer(x.to(dtype))
    assert str(ours.value) == str(theirs.value)
