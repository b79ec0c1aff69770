"""Steps during backward: the same bits as after it, and gradients freed block by block."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint
from vision_networks import OPTIMIZERS, assert_same, freed, loss_of, pair, vit

from mist_ext.arrival import UsedGradient
from mist_ext.optim import InBackward, SparseSGD
from mist_ext.optim.in_backward import block_name


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


def test_without_the_context_gradients_stay() -> None:
    model = vit()
    _, optimizer, _ = pair(SparseSGD, model)
    with InBackward(optimizer):
        pass
    loss_of(model, 0).backward()
    assert all(p.grad is not None for p in model.parameters())


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
