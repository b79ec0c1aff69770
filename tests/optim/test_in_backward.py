"""Steps taken while backward runs: the same bits, gradients freed block by block, and what is refused."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from mist_ext.arrival import UsedGradient
from mist_ext.optim import InBackward, SparseAdamW, SparseSGD
from mist_ext.optim.in_backward import block_name
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity

OPTIMIZERS = [SparseSGD, SparseAdamW]


def vit(dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=3, num_heads=2, embed_dim=32, num_classes=5, **options
    ).to(dtype)


def pair(make: type, model: nn.Module, **options: Any) -> tuple[nn.Module, Any, Any]:
    """A copy of the model, and an optimiser for each."""
    other = copy.deepcopy(model)
    selection = Selection.random(model.named_parameters(), 0.2, seed=1)
    return other, *(make(m.named_parameters(), selection, **{"lr": 0.01, **options}) for m in (model, other))


def freed(parameter: Tensor) -> bool:
    return parameter.grad is None or isinstance(parameter.grad, UsedGradient)


def loss_of(model: nn.Module, step: int) -> Tensor:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(step))
    return model(images.to(next(model.parameters()).dtype)).float().square().mean()


def assert_same(same_bits: Callable, model: nn.Module, other: nn.Module, one: Any, two: Any) -> None:
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert same_bits(p, q), name
        assert one.state[p].keys() == two.state[q].keys()
        assert all(same_bits(value, two.state[q][kind]) for kind, value in one.state[p].items()), name


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_bits_are_those_of_stepping_after_backward(make, dtype, checkpointing, same_bits) -> None:
    model = vit(dtype)
    model.set_grad_checkpointing(checkpointing)
    other, within, after = pair(make, model, keep=0.5, weight_decay=0.01)
    before = copy.deepcopy(model.state_dict())
    with InBackward(within):
        for step in range(5):
            loss_of(model, step).backward()
            within.step()
            loss_of(other, step).backward()
            after.step()
            after.zero_grad()
    assert within.steps == after.steps == 5
    assert_same(same_bits, model, other, within, after)
    assert not torch.equal(before["blocks.1.mlp.fc1.weight"], model.state_dict()["blocks.1.mlp.fc1.weight"])


def test_only_one_block_s_gradients_exist_at_a_time() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    blocks_with_gradients: list[set[str]] = []

    def look(_: Tensor) -> None:
        there = {name for name, p in model.named_parameters() if not freed(p)}
        blocks_with_gradients.append({block_name(name) for name in there})

    for p in model.parameters():  # registered first, so called before the gradient is used
        p.register_post_accumulate_grad_hook(look)
    with InBackward(optimizer):
        loss_of(model, 0).backward()
        assert all(isinstance(p.grad, UsedGradient) for p in model.parameters())
        optimizer.step()
        assert all(p.grad is None for p in model.parameters())
    assert len(blocks_with_gradients) == len(list(model.parameters()))
    # The class token and the position embedding are a block of their own, which is complete last.
    assert all(len(blocks - {""}) <= 1 for blocks in blocks_with_gradients)


def test_peak_memory_is_that_of_the_largest_block() -> None:
    """Allocations tracked by torch's profiler: backward with steps in it needs less by nearly all gradients."""
    model = vit()
    other, within, after = pair(SparseSGD, model)
    gradients = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in model.blocks)

    def grown(run: Callable[[], None]) -> int:
        """The most bytes beyond those at the beginning."""
        with torch.profiler.profile(profile_memory=True) as profile:
            run()
        changes = [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        level = most = 0
        for change in changes:
            level += change
            most = max(most, level)
        return most

    def step_within(loss: Tensor) -> None:
        with InBackward(within):
            loss.backward()
            within.step()

    def step_after(loss: Tensor) -> None:
        loss.backward()
        after.step()
        after.zero_grad()

    for run, m in ((step_within, model), (step_after, other)):
        run(loss_of(m, 0))
    losses = [loss_of(m, 1) for m in (model, other)]
    slim, dense = grown(lambda: step_within(losses[0])), grown(lambda: step_after(losses[1]))
    assert dense - slim > 0.5 * (gradients - largest)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_parts_that_are_not_used_do_not_hold_up_their_block(make, same_bits) -> None:
    """A block of which a part got no gradient is updated by step()."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"left": nn.Linear(4, 4), "right": nn.Linear(4, 4)}) for _ in range(2)
            )

        def forward(self, x: Tensor, part: str) -> Tensor:
            for block in self.blocks:
                x = block[part](x)
            return x

    torch.manual_seed(0)
    model = Branches()
    other, within, after = pair(make, model, keep=1.0)
    with InBackward(within):
        for part in ("left", "right", "left"):
            for m, optimizer in ((model, within), (other, after)):
                m(torch.ones(2, 4), part).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    assert_same(same_bits, model, other, within, after)


def test_frozen_parts_do_not_hold_up_their_block(same_bits) -> None:
    model = vit()
    for name, p in model.named_parameters():
        p.requires_grad_("mlp" in name)
    other, within, after = pair(SparseSGD, model, keep=1.0)
    with InBackward(within):
        loss_of(model, 0).backward()
        assert all(freed(p) for p in model.parameters())
        within.step()
    loss_of(other, 0).backward()
    after.step()
    assert_same(same_bits, model, other, within, after)


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


def test_tied_weights_take_their_whole_gradient_once(same_bits) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 4)
            self.last = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.shared(x)))

    torch.manual_seed(0)
    model = Tied()
    other, within, after = pair(SparseSGD, model, keep=1.0)
    with InBackward(within):
        for m, optimizer in ((model, within), (other, after)):
            m(torch.ones(2, 4)).square().mean().backward()
            optimizer.step()
    assert_same(same_bits, model, other, within, after)


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


def test_reentrant_checkpointing_of_whole_blocks_gives_the_same_bits(same_bits) -> None:
    """A weight that is used inside of one checkpoint alone gets its gradient at once."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        for block in model:
            x = checkpoint(block, x, use_reentrant=True)
        return x.square().mean()

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)) for _ in range(3)))
    other, within, after = pair(SparseSGD, model, keep=0.5)
    with InBackward(within):
        for step in range(4):
            x = torch.full((2, 6), 1.0 + step, requires_grad=True)
            forward(model, x).backward()
            within.step()
            forward(other, x).backward()
            after.step()
            after.zero_grad()
    assert_same(same_bits, model, other, within, after)


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


def test_clipping_by_the_global_norm_works_on_a_network_that_is_not_tuned_in_backward() -> None:
    model = vit()
    other, optimizer, _ = pair(SparseSGD, model)
    loss_of(other, 0).backward()
    with InBackward(optimizer):
        assert clip_grad_norm_(other.parameters(), 1e-3) > 1e-3
    norm = torch.stack([p.grad.norm() for p in other.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(1e-3))


def test_used_gradients_take_no_memory_and_are_gone_when_the_context_is_left() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    with InBackward(optimizer):
        loss_of(model, 0).backward()
        for name, p in model.named_parameters():
            assert p.grad.shape == p.shape
            assert p.grad.untyped_storage().nbytes() == 0 or p.grad.data_ptr() == 0
            assert repr(p.grad) == f"UsedGradient({name!r})"
    assert all(p.grad is None for p in model.parameters())


def test_a_closure_may_go_backward_within_the_step(same_bits) -> None:
    model = vit()
    other, within, after = pair(SparseSGD, model)
    for optimizer, m in ((within, model), (after, other)):
        with InBackward(optimizer) if optimizer is within else contextlib.nullcontext():
            for step in range(2):

                def closure(m: nn.Module = m, step: int = step) -> Tensor:
                    loss = loss_of(m, step)
                    loss.backward()
                    return loss

                optimizer.step(closure)
                optimizer.zero_grad()
    assert_same(same_bits, model, other, within, after)


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


def test_without_the_context_gradients_stay() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    with InBackward(optimizer):
        pass
    loss_of(model, 0).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_on_a_gpu_the_bits_are_those_of_stepping_after_backward(make, dtype, same_bits) -> None:
    """Both are given the same gradients: sums in a GPU's own backward need not repeat."""
    model = vit(dtype).cuda()
    other, within, after = pair(make, model, keep=0.5, weight_decay=0.01)
    others = dict(other.named_parameters())
    for name, p in model.named_parameters():

        def copy_gradient(p: Tensor, name: str = name) -> None:
            others[name].grad = p.grad.clone()

        p.register_post_accumulate_grad_hook(copy_gradient)  # before it is used
    with InBackward(within):
        for step in range(5):
            images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(step))
            model(images.to("cuda", dtype)).float().square().mean().backward()
            within.step()
            after.step()
    assert_same(same_bits, model, other, within, after)


@pytest.mark.gpu
def test_on_a_gpu_peak_memory_is_that_of_the_largest_block() -> None:
    """Of `torch.cuda.max_memory_allocated`, beyond weights, state and activations."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", img_size=32, num_classes=0).cuda()
    _, optimizer, _ = pair(SparseSGD, model)
    gradients = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in model.blocks)
    images = torch.randn(2, 3, 32, 32, device="cuda")  # few activations, which backward frees as it goes

    def peak(within: bool) -> int:
        """The most bytes while going backward and stepping, beyond those at its beginning."""
        loss = model(images).square().mean()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with InBackward(optimizer) if within else contextlib.nullcontext():
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    for within in (True, False):  # the first makes lazy state
        peak(within)
    slim, dense = peak(True), peak(False)
    assert dense - slim > 0.5 * (gradients - largest)


@pytest.mark.gpu
def test_a_block_whose_parts_run_on_streams_of_their_own_is_updated_after_all_of_them() -> None:
    """One part's gradient is delayed on its stream; an update that did not wait would read what was there before."""
    side = torch.cuda.Stream()

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"left": nn.Linear(512, 512), "right": nn.Linear(512, 512)})])

        def forward(self, x: Tensor) -> Tensor:
            left = self.blocks[0]["left"](x)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                right = self.blocks[0]["right"](x)
                for _ in range(50):  # what goes backward through these arrives late
                    right = (right @ torch.eye(512, device="cuda")).relu()
            torch.cuda.current_stream().wait_stream(side)
            return left + right

    torch.manual_seed(0)
    model = Branches().cuda()
    other, within, after = pair(SparseSGD, model, keep=1.0)
    for step in range(5):
        x = torch.randn(64, 512, generator=torch.Generator().manual_seed(step)).cuda()
        with InBackward(within):
            (100 * model(x).square().mean()).backward()
            within.step()
        (100 * other(x).square().mean()).backward()
        torch.cuda.synchronize()
        after.step()
        after.zero_grad()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blocks.3.mlp.fc1.weight", "blocks.3"),
        ("blocks.11.norm1.bias", "blocks.11"),
        ("layer1.0.conv1.weight", "layer1.0"),
        ("0.weight", "0"),
        ("patch_embed.proj.weight", "patch_embed.proj"),
        ("norm.bias", "norm"),
        ("cls_token", ""),
    ],
)
def test_a_block_is_named_up_to_its_number(name: str, block: str) -> None:
    assert block_name(name) == block
