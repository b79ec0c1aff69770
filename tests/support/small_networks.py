"""Small networks, the optimisers that step them, and what of a step is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.kernels import ops, reference
from mist_ext.optim import SparseAdamW, SparseSGD
from mist_ext.selection import Selection

Made = tuple[nn.Module, Any]


TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()


@dataclass(frozen=True)
class Kind:
    """A sparse optimiser, torch's own, and an entry's state by its names there and in the op."""

    sparse: type
    dense: type
    state: dict[str, str]


AVERAGES = ("exp_avg", "exp_avg_sq", "updates")
KINDS = {
    "sgd": Kind(SparseSGD, torch.optim.SGD, {"momentum": "momentum_buffer"}),
    "adamw": Kind(SparseAdamW, torch.optim.AdamW, dict(zip(AVERAGES, AVERAGES, strict=True))),
}


def network(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.LayerNorm(40), nn.Linear(40, 6)).to(device, dtype)


def give_gradients(model: nn.Module, step: int) -> None:
    """Gradients that are a function of the step alone."""
    drawing = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=drawing).to(p.device, p.dtype)


def selected(model: nn.Module, rate: float = 0.2) -> Selection:
    return Selection.random(model.named_parameters(), rate, seed=4)


def made(kind: Kind, dtype: torch.dtype = torch.float32, **options: Any) -> Made:
    """A network, and an optimiser of it in two groups."""
    model = network(dtype)
    named = list(model.named_parameters())
    groups = [{"params": named[:2], "lr": 0.05}, {"params": named[2:], "weight_decay": 0.02}]
    return model, kind.sparse(groups, selected(model), **{"lr": 0.1, "keep": 0.5, "seed": 3, **options})


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def assert_same(ours: nn.Module, theirs: nn.Module, same_bits: Callable) -> None:
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert same_bits(p, q), name


def kept_mask(selection: Selection, name: str, keep: float, seed: int, step: int) -> Tensor:
    """Which entries of a parameter keep their gradient: bool, of its shape."""
    index = selection[name]
    kept = reference.keep_mask(seed, list(selection).index(name), step, selection.count(name), ops.keep_threshold(keep))
    positions = torch.arange(selection.numel(name)) if index is None else index.cpu().long()
    mask = torch.zeros(selection.numel(name), dtype=torch.bool)
    mask[positions[kept]] = True
    return mask.view(selection.shape[name])
