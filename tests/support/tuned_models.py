"""A small ViT of timm, and what tasks that tune a part of it leave."""

from __future__ import annotations

import copy

import timm
import torch
from torch import nn

from mist_ext.deltas import TaskDelta

DENSE = ("norm.weight", "blocks.0.norm1.bias")  # of which every entry changes


def vit() -> nn.Module:
    """A ViT of two blocks, width 32, for images of 32 pixels."""
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    return timm.create_model("vit_tiny_patch16_224", **settings).eval()


@torch.no_grad()
def tune_(model: nn.Module, seed: int, share: float = 0.05) -> None:
    """Change a share of each matrix, and a few vectors as a whole."""
    drawing = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        chosen = torch.rand(parameter.shape, generator=drawing) < (1 if name in DENSE else share)
        parameter += chosen * 0.1 * torch.randn(parameter.shape, generator=drawing)


def tasks_of_one_base(count: int) -> tuple[nn.Module, list[TaskDelta]]:
    """A base, and deltas that each begin at it."""
    base, deltas = vit(), []
    for seed in range(count):
        tuned = copy.deepcopy(base)
        tune_(tuned, seed)
        deltas.append(TaskDelta.between(base, tuned, info={"task": seed + 1}))
    return base, deltas


def chain_of_tasks(count: int) -> tuple[list[nn.Module], list[TaskDelta]]:
    """The models before and after each of successive tasks, and their deltas."""
    models, deltas = [vit()], []
    for seed in range(count):
        tuned = copy.deepcopy(models[-1])
        tune_(tuned, seed)
        deltas.append(TaskDelta.between(models[-1], tuned, info={"task": seed + 1, "tuner": "mist", "seed": 1}))
        models.append(tuned)
    return models, deltas
