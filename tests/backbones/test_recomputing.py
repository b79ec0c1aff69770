"""What backward computes anew: less is kept, gradients have the same bits, and what was changed since is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mist_ext import backbones
from mist_ext.backbones import recomputed

TOKENS, WIDTH, DEPTH = 17, 128, 6  # of vit_nano
OF_A_BLOCK = 4 * TOKENS * WIDTH * DEPTH  # bytes of as many float32 tensors [tokens, width] as there are blocks


@pytest.fixture
def vit() -> Any:
    torch.manual_seed(0)
    return backbones.create("vit_nano", "none").train()


def pixels(rows: int) -> Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(rows))


def kept(network: nn.Module, context: Callable, rows: int) -> int:
    """Bytes that going forward has allocated and not freed."""
    images = pixels(rows)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled, context(network):
        features = network(images)
    del features
    return sum(event.self_cpu_memory_usage for event in profiled.key_averages())


def gradients(network: nn.Module, context: Callable) -> list[Tensor]:
    with context(network):
        features = network(pixels(3))
    features.square().sum().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


def nothing(_network: nn.Module) -> nullcontext:
    return nullcontext()


@pytest.mark.parametrize(("context", "numbers"), [(nothing, 16), (recomputed, 10)])
def test_ten_numbers_are_kept_of_sixteen(vit: nn.Module, context: Callable, numbers: int) -> None:
    of_a_row = (kept(vit, context, 4) - kept(vit, context, 2)) / 2
    assert of_a_row / OF_A_BLOCK == pytest.approx(numbers + 0.4, abs=0.1)  # and of the patches, norms and attention


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_have_the_same_bits(vit: nn.Module, same_bits: Callable, autocast: bool) -> None:
    found = []
    for context in (nothing, recomputed):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(gradients(vit, context))
        vit.zero_grad()
    assert len(found[0]) == len(found[1]) == len(list(vit.parameters()))
    assert all(map(same_bits, *found))


def test_hooks_of_others_keep_their_effect(vit: Any, same_bits: Callable) -> None:
    """A method may change what a norm gives, before or after the linear layer asks for it."""
    for module in (vit.blocks[0].norm1, vit.blocks[1].mlp.act):
        module.register_forward_hook(lambda _module, _args, output: 2 * output)
    vit.blocks[2].norm2.register_forward_hook(lambda _module, _args, output: output.mul_(2))
    vit.blocks[3].mlp.fc2.register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    plain = gradients(vit, nothing)
    vit.zero_grad()
    assert all(map(same_bits, plain, gradients(vit, recomputed)))


def test_backward_says_what_was_changed_since_forward(vit: Any) -> None:
    with recomputed(vit):
        features = vit(pixels(2))
    with torch.no_grad():
        vit.blocks[-1].mlp.fc2.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"shape \[512, 128\] that backward needs was changed in place"):
        features.sum().backward()


def test_an_error_leaves_no_hook_behind(vit: Any) -> None:
    vit.blocks[0].mlp.fc2.weight = nn.Parameter(torch.ones(WIDTH, 3))
    with recomputed(vit), pytest.raises(RuntimeError):
        vit(pixels(2))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in vit.modules())
    base = torch.ones(2, requires_grad=True)
    factor = base * 2
    product = factor * factor
    factor.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):  # by torch, which keeps it itself
        product.sum().backward()


@pytest.mark.parametrize("how", ["checkpointed", "compiled"])
def test_blocks_that_run_in_another_way_are_left_alone(vit: Any, how: str) -> None:
    if how == "checkpointed":
        backbones.set_checkpointing(vit)
    else:
        backbones.compile_blocks(vit)
    with recomputed(vit):
        assert not any(m._forward_hooks for m in vit.modules())
