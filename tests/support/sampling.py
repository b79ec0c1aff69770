"""Sampled gradients beside those of a copy in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from small_networks import kept_mask
from torch import Tensor, nn

from mist_ext import Selection, SparseSGD
from mist_ext.optim.kept_gradient import KeptGradient

KEEP, SEED = 0.5, 5


def sparse(model: nn.Module, make: type = SparseSGD, rate: float = 0.3, **options: Any) -> Any:
    """An optimiser of the whole model."""
    named = list(model.named_parameters())
    options = {"lr": 0.01, "keep": KEEP, "seed": SEED, **options}
    return make(named, Selection.random(named, rate, seed=1), **options)


def double(model: nn.Module) -> nn.Module:
    """A copy in float64."""
    return copy.deepcopy(model).double()


def exact(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """The dense gradients in float64, by name."""
    other = double(model)
    loss(other).backward()
    return {name: p.grad for name, p in other.named_parameters() if p.grad is not None}


def assert_kept(model: nn.Module, optimizer: Any, expected: dict[str, Tensor], tolerance: float = 1e-5) -> list[str]:
    """Every gradient is the expected one at the kept entries, to a tolerance relative to the largest of its tensor.

    Returns the names of those that were sampled.
    """
    sampled = []
    keep = {name: group["keep"] for group in optimizer.param_groups for name in group["param_names"]}
    for name, p in model.named_parameters():
        if p.grad is None:
            assert name not in expected, name
            continue
        dense = expected[name]
        if isinstance(p.grad, KeptGradient):
            sampled.append(name)
            mask = kept_mask(optimizer.selection, name, keep[name], optimizer.seed, optimizer.steps)
            ours, theirs = p.grad.entries.vector, dense[mask]
            assert ours.dtype == torch.float32
            assert (p.grad.shape, p.grad.dtype) == (p.shape, p.dtype)
        else:
            ours, theirs = p.grad, dense
        assert ours.shape == theirs.shape, name
        assert float((ours.double() - theirs).abs().max()) <= tolerance * float(dense.abs().max()), name
    return sampled
