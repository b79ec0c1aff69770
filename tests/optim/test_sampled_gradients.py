"""SampledGradients: the kept entries' gradients are those of a dense backward pass, however a layer is used."""

from __future__ import annotations

import copy
import io
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sampling import assert_kept, exact, sparse
from slow import first_is_quick
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from vision_networks import OPTIMIZERS, loss_of, pair, vit

from mist_ext import SampledGradients, Selection, SparseAdamW, SparseSGD
from mist_ext.optim.kept_gradient import KeptGradient


def image_loss(model: nn.Module, step: int = 0) -> Tensor:
    return loss_of(model, step)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_steps_are_those_of_dense_gradients(make) -> None:
    model = vit()
    # AdamW divides by the gradient's size, so where that is rounding alone only a large eps keeps two orders together.
    options = {"eps": 1e-3} if make is SparseAdamW else {}
    other, ours, theirs = pair(make, model, keep=0.5, weight_decay=0.01, **options)
    began = copy.deepcopy(model.state_dict())
    with SampledGradients(ours, model):
        for step in range(5):
            loss_of(model, step).backward()
            ours.step()
            ours.zero_grad()
            loss_of(other, step).backward()
            theirs.step()
            theirs.zero_grad()
    assert ours.steps == theirs.steps == 5
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
        if p.ndim == 2:
            assert torch.equal(p != began[name], q != began[name]), name


def test_every_linear_layer_and_the_patch_embedding_are_sampled() -> None:
    model = vit()
    optimizer = sparse(model)
    expected = exact(model, image_loss)
    with SampledGradients(optimizer, model) as sampled:
        image_loss(model).backward()
        names = assert_kept(model, optimizer, expected)
    layers = [f"blocks.{i}.{part}.weight" for i in range(3) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert names == ["patch_embed.proj.weight", *layers, "head.weight"]
    assert sampled.names == []


def test_a_kept_gradient_has_no_dense_memory() -> None:
    model = vit()
    optimizer = sparse(model, rate=0.05, keep=0.1)
    with SampledGradients(optimizer, model) as sampled:
        image_loss(model).backward()
        assert len(sampled.names) == 14
        for name, p in model.named_parameters():
            if name in sampled.names:
                assert isinstance(p.grad, KeptGradient)
                assert p.grad.untyped_storage().nbytes() == 0 or p.grad.data_ptr() == 0
                assert p.grad.entries.vector.untyped_storage().nbytes() < 0.02 * p.nbytes + 200


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_16_bit_model_has_float32_sums(dtype) -> None:
    model = vit(dtype)
    optimizer = sparse(model)
    expected = exact(model, image_loss)
    with SampledGradients(optimizer, model):
        image_loss(model).backward()
        assert len(assert_kept(model, optimizer, expected, 0.1)) == 14
        optimizer.step()
    assert optimizer.steps == 1


@pytest.mark.parametrize("backward_inside", [False, True], ids=["outside", "inside"])
def test_autocast_casts_as_it_does_without(backward_inside) -> None:
    """Under autocast outputs and gradients are bfloat16; float32 sums are nearer to float64 than bfloat16 ones."""
    model = vit()
    optimizer = sparse(model)
    expected = exact(model, image_loss)
    plain = copy.deepcopy(model)
    seen: list[torch.dtype] = []
    for m in (model, plain):
        m.blocks[0].mlp.fc1.register_forward_hook(lambda _module, _given, out: seen.append(out.dtype))
    with SampledGradients(optimizer, model):
        for m in (model, plain):
            with torch.autocast("cpu", torch.bfloat16):
                loss = image_loss(m)
                if backward_inside:
                    loss.backward()
            if not backward_inside:
                loss.backward()
        assert seen == [torch.bfloat16] * 2
        assert len(assert_kept(model, optimizer, expected, 0.1)) == 14
        for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
            if not isinstance(p.grad, KeptGradient):
                torch.testing.assert_close(p.grad, q.grad, rtol=0.1, atol=0.05 * float(q.grad.abs().max()), msg=name)


class Shared(nn.Module):
    """One layer used twice, two layers with one weight, and a linear layer of vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twice = nn.Linear(8, 8)
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.other.weight = self.one.weight
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(F.gelu(self.twice(x)))
        return self.last(self.other(F.gelu(self.one(x))).mean((0, 1)))


def vector_loss(model: nn.Module, rows: int = 4) -> Tensor:
    x = torch.randn(2, rows, 8, generator=torch.Generator().manual_seed(3))
    return model(x.to(next(model.parameters()).dtype)).square().sum()


def test_uses_of_a_weight_add_up() -> None:
    model = Shared()
    optimizer = sparse(model)
    expected = exact(model, vector_loss)
    with SampledGradients(optimizer, model):
        vector_loss(model).backward()
        assert assert_kept(model, optimizer, expected) == ["twice.weight", "one.weight", "last.weight"]


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 5, 3), (4, 3), (3,)])
def test_what_a_layer_gives_may_be_changed_in_place(shape) -> None:
    layer = nn.Linear(3, 2) if len(shape) < 4 else nn.Conv2d(4, 2, (4, 3), (4, 3))
    images = torch.randn(shape)
    optimizer = sparse(layer, rate=1.0)

    def loss(model: nn.Module) -> Tensor:  # as timm adds positions to patches
        return model(images.to(next(model.parameters()).dtype)).mul_(2).add_(1).square().sum()

    expected = exact(layer, loss)
    with SampledGradients(optimizer, layer):
        loss(layer).backward()
        assert assert_kept(layer, optimizer, expected) == ["weight"]


def test_a_batch_of_nothing_has_gradients_of_zero() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    optimizer = sparse(model)
    with SampledGradients(optimizer, model):
        model(torch.ones(0, 8)).sum().backward()
        assert not model[1].weight.grad.entries.vector.any()
        optimizer.step()


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_layer_without_features_takes_part() -> None:
    model = nn.ModuleList([nn.Linear(8, 3), nn.Linear(0, 3), nn.Linear(8, 0)])
    optimizer = sparse(model)
    with SampledGradients(optimizer, model):
        (model[0](torch.ones(2, 8)) + model[1](torch.ones(2, 0)) + model[2](torch.ones(2, 8)).sum()).sum().backward()
        optimizer.step()


def test_frozen_parts_and_several_groups() -> None:
    model = vit()
    for name, p in model.named_parameters():
        p.requires_grad_("attn" not in name)
    named = list(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": named[:20], "keep": 0.3},
        {"params": named[20:], "lr": 0.02, "weight_decay": 0.1},
    ]
    optimizer = SparseSGD(groups, Selection.random(named, 0.3, seed=1, whole="head"), keep=0.7, seed=5)
    other = copy.deepcopy(model)
    expected = exact(model, image_loss)
    with SampledGradients(optimizer, model):
        image_loss(model).backward()
        assert len(assert_kept(model, optimizer, expected)) == 8
        optimizer.step()
    assert torch.equal(model.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)
    assert not torch.equal(model.head.weight, other.head.weight)


class Odd(nn.Module):
    """Layers that cannot be sampled beside one that can."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.overlapping = nn.Conv2d(3, 8, 3, padding=1)
        self.patches = nn.Conv2d(8, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.words = nn.Embedding(10, 8)
        self.read_out = nn.Linear(8, 10, bias=False)
        self.read_out.weight = self.words.weight
        self.functional = nn.Linear(8, 8)
        self.normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(self.overlapping(x)).flatten(2).mT
        x = self.attention(x, x, x, need_weights=False)[0] + self.words(torch.tensor([3]))
        return self.read_out(self.normed(F.linear(x, self.functional.weight)))


def odd_loss(model: nn.Module) -> Tensor:
    x = torch.randn(2, 3, 15, 18, generator=torch.Generator().manual_seed(3))  # patches leave pixels over
    return model(x.to(next(model.parameters()).dtype)).square().sum()


def test_what_cannot_be_sampled_has_dense_gradients() -> None:
    model = Odd()
    optimizer = sparse(model)
    expected = exact(model, odd_loss)
    with SampledGradients(optimizer, model) as sampled:
        assert sampled.names == ["patches.weight", "functional.weight"]
        odd_loss(model).backward()
        assert assert_kept(model, optimizer, expected) == ["patches.weight"]
        optimizer.step()


@pytest.mark.parametrize("reentrant", [False, True], ids=["non_reentrant", "reentrant"])
def test_checkpointing_adds_up_what_it_computes_again(reentrant) -> None:
    def loss(model: nn.Module) -> Tensor:
        x = torch.linspace(-1, 1, 16, dtype=next(model.parameters()).dtype).view(2, 8).requires_grad_()
        for layer in (model[0], model[1], model[0]):
            x = checkpoint(layer, x, use_reentrant=reentrant)
        return x.square().sum()

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)) for _ in range(2)))
    optimizer = sparse(model)
    expected = exact(model, loss)
    with SampledGradients(optimizer, model):
        loss(model).backward()
        assert len(assert_kept(model, optimizer, expected)) == 4
    model = vit()
    model.set_grad_checkpointing()
    optimizer = sparse(model)
    expected = exact(model, image_loss)
    with SampledGradients(optimizer, model):
        image_loss(model).backward()
        assert len(assert_kept(model, optimizer, expected)) == 14


@pytest.mark.parametrize("when", first_is_quick(["before", "within"]))
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_share_a_graph_and_follow_the_steps(backend, when) -> None:
    torch.compiler.reset()
    counted: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        counted.append(len(graph.graph.nodes))
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    model = vit()
    optimizer = sparse(model)
    for block in model.blocks:
        block.compile(backend=counting, fullgraph=True)
    if when == "before":
        image_loss(model).backward()
        optimizer.zero_grad()
    with SampledGradients(optimizer, model):
        for step in range(3):
            for part in range(2):  # a graph may be made while there is a KeptGradient
                expected = exact(model, partial(twice_seen, step=step, passes=part + 1))
                image_loss(model, 10 * step + part).backward()
                assert len(assert_kept(model, optimizer, expected)) == 14
            optimizer.step()
            optimizer.zero_grad()
    expected = exact(model, image_loss)
    image_loss(model).backward()
    assert assert_kept(model, optimizer, expected) == []
    assert len(counted) == 2  # one within the context, one outside


def twice_seen(model: nn.Module, step: int, passes: int) -> Tensor:
    """The losses of some passes together."""
    return sum(image_loss(model, 10 * step + part) for part in range(passes))  # type: ignore[return-value]


def test_hooks_of_modules_see_what_they_see_without() -> None:
    seen: dict[str, list[Any]] = {"sampled": [], "dense": []}
    model = vit()
    for key, m in (("sampled", model), ("dense", copy.deepcopy(model))):
        fc1 = m.blocks[1].mlp.fc1
        fc1.register_forward_pre_hook(lambda _m, given, key=key: seen[key].append(given[0].detach()))
        fc1.register_forward_hook(lambda _m, _given, out, key=key: seen[key].append(out.detach()))
        fc1.register_full_backward_hook(lambda _m, inner, outer, key=key: seen[key].extend([inner[0], outer[0]]))
        optimizer = sparse(m)
        if key == "sampled":
            with SampledGradients(optimizer, m):
                image_loss(m).backward()
        else:
            image_loss(m).backward()
    assert len(seen["sampled"]) == 4
    for ours, theirs in zip(*seen.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_copy_of_the_model_is_a_plain_one() -> None:
    model = vit()
    before = list(model.state_dict())
    optimizer = sparse(model)
    expected = exact(model, image_loss)
    stored = io.BytesIO()
    with SampledGradients(optimizer, model):
        image_loss(model).backward()
        assert list(model.state_dict()) == before
        copied = copy.deepcopy(model)
        torch.save(model, stored)
    stored.seek(0)
    for other in (copied, torch.load(stored, weights_only=False)):
        assert list(other.state_dict()) == before
        theirs = sparse(other)
        other.zero_grad()
        image_loss(other).backward()
        assert assert_kept(other, theirs, expected) == []
        theirs.zero_grad()
        with SampledGradients(theirs, other) as sampled:
            assert len(sampled.names) == 14


def test_other_weights_in_the_same_layers_get_their_own_gradients() -> None:
    model = vit()
    optimizer = sparse(model)
    with SampledGradients(optimizer, model):
        other = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
        images = torch.randn(3, 3, 32, 32)
        torch.func.functional_call(model, other, (images,)).sum().backward()
        assert all(p.grad is None for p in model.parameters())
        assert all(p.grad is not None for p in other.values())


def test_evaluation_and_layers_frozen_meanwhile_are_dense() -> None:
    model = vit()
    optimizer = sparse(model)
    plain = image_loss(model)
    with SampledGradients(optimizer, model):
        with torch.no_grad():
            assert torch.equal(image_loss(model), plain)
        with torch.inference_mode():
            assert torch.equal(image_loss(model), plain)
        assert torch.equal(image_loss(model), plain)
        model.head.weight.requires_grad_(False)
        image_loss(model).backward()
        assert model.head.weight.grad is None
        assert isinstance(model.blocks[0].attn.qkv.weight.grad, KeptGradient)


def test_everything_is_as_before_when_the_context_is_left() -> None:
    model = vit()
    optimizer = sparse(model)
    for error in (None, KeyError):
        try:
            with SampledGradients(optimizer, model):
                image_loss(model).backward()
                optimizer.step()
                if error:
                    raise error
        except KeyError:
            pass
        assert all("forward" not in module.__dict__ for module in model.modules())
        assert all(not isinstance(p.grad, KeptGradient) for p in model.parameters())
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_load_state_dict_post_hooks
        assert optimizer.sampling is None
        optimizer.zero_grad()
    expected = exact(model, image_loss)
    image_loss(model).backward()
    assert assert_kept(model, optimizer, expected) == []
