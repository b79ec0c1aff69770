"""A small ViT, two optimisers of it and of a copy, and how both are compared after steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mist_ext.arrival import UsedGradient
from mist_ext.optim import SparseAdamW, SparseSGD
from mist_ext.selection import Selection

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
