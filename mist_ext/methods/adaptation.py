"""Small networks beside a frozen ViT: adapters, SSF, visual prompts, and a copy that is tuned itself."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.methods.hooks import Hook, attached, parallel_to_mlp, prompt_length, prompt_tokens, scale_and_shift


class Adaptation(nn.Module):
    """Parameters that are attached to a backbone while it runs."""

    @classmethod
    def check(cls, backbone: Any, **settings: Any) -> None:
        """Raise ValueError if these parameters, with these arguments, do not fit the backbone."""

    def hooks(self, backbone: Any) -> list[Hook]:
        """Return the hooks that attach these parameters to a backbone."""
        raise NotImplementedError

    def features(self, backbone: Any, pixels: Tensor) -> Tensor:
        """Return the backbone's features with these parameters attached: float32 ``[n, num_features]``."""
        with attached(self.hooks(backbone)):
            return backbone(pixels.to(next(backbone.parameters()).dtype)).float()


class Adapter(nn.Module):
    """A bottleneck ``s W_up relu(W_down x)`` (AdaptFormer, arXiv 2205.13535): nothing before it is trained."""

    def __init__(self, width: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width), scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapter's output, of the shape of x ``[..., width]``; dropout 0.1 in training, as published."""
        hidden = functional.dropout(self.down(x).relu(), 0.1, self.training)
        return self.scale * self.up(hidden)


class Adapters(Adaptation):
    """An adapter beside every block's MLP."""

    def __init__(self, backbone: Any, bottleneck: int, scale: float = 0.1) -> None:
        super().__init__()
        width = int(backbone.num_features)
        self.blocks = nn.ModuleList(Adapter(width, bottleneck, scale) for _ in backbone.blocks)

    def hooks(self, backbone: Any) -> list[Hook]:
        """Return a pair of hooks for each block."""
        pairs = zip(backbone.blocks, self.blocks, strict=True)
        return [hook for block, adapter in pairs for hook in parallel_to_mlp(block, adapter)]


class ScaleShift(Adaptation):
    """SSF (arXiv 2210.08823): ``y * gamma + beta`` after the patch embedding, every norm and every linear layer."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.names = [
            name
            for name, module in backbone.named_modules()
            if name == "patch_embed"
            or (isinstance(module, nn.LayerNorm | nn.Linear) and name.startswith(("blocks.", "norm", "fc_norm")))
        ]
        modules = dict(backbone.named_modules())
        widths = [_outputs(modules[name]) for name in self.names]
        self.gamma = nn.ParameterList(torch.normal(1.0, 0.02, (width,)) for width in widths)
        self.beta = nn.ParameterList(torch.normal(0.0, 0.02, (width,)) for width in widths)

    def hooks(self, backbone: Any) -> list[Hook]:
        """Return one hook for each operation."""
        modules = dict(backbone.named_modules())
        parts = zip(self.names, self.gamma, self.beta, strict=True)
        return [scale_and_shift(modules[name], gamma, beta) for name, gamma, beta in parts]


class VisualPrompts(Adaptation):
    """VPT (arXiv 2203.12119): prompts beside the first block's tokens (shallow), or new ones in every block (deep).

    They are drawn as VPT draws them, uniform within ``sqrt(6 / (3 patch^2 + d))``. APER's published code begins with
    zeros, from where all prompts of a block get the same gradient and stay equal for ever.
    """

    def __init__(self, backbone: Any, length: int, deep: bool) -> None:
        super().__init__()
        height, width = backbone.patch_embed.patch_size
        dimensions = int(backbone.num_features)
        bound = math.sqrt(6 / (3 * height * width + dimensions))
        layers = len(backbone.blocks) if deep else 1
        self.prompts = nn.Parameter(torch.empty(layers, length, dimensions).uniform_(-bound, bound))

    @classmethod
    def check(cls, backbone: Any, **settings: Any) -> None:
        """Refuse more prompts than the backbone has tokens."""
        prompt_length(backbone, "length", settings["length"], settings["length"])

    def hooks(self, backbone: Any) -> list[Hook]:
        """Return a pair of hooks for all blocks, or a pair for each."""
        blocks = list(backbone.blocks)
        if len(self.prompts) == 1:
            return prompt_tokens(blocks[0], blocks[-1], self.prompts[0])
        return [
            hook for block, own in zip(blocks, self.prompts, strict=True) for hook in prompt_tokens(block, block, own)
        ]


class TunedCopy(Adaptation):
    """A float32 copy of the whole backbone, itself tuned."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.own = copy.deepcopy(backbone).float()
        for parameter in self.own.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None

    def features(self, backbone: Any, pixels: Tensor) -> Tensor:
        """Return the features of the backbone's copy."""
        return self.own(pixels)


def at_least_one(option: str, value: int) -> int:
    """Return an option's value; ValueError if it is below 1, so that no training begins with it."""
    if value < 1:
        raise ValueError(f"{option}={value}: expected 1 or more")
    return value


def _outputs(module: Any) -> int:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[0])
    return int(module.proj.out_channels)
