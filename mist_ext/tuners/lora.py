"""LoRA (Hu et al., arXiv 2106.09685) by peft: low-rank adapters, merged into the weights after each task."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext import backbones
from mist_ext.config import TuningOptions
from mist_ext.distributed import agreement
from mist_ext.distributed.shard_files import fill_
from mist_ext.seeding import draw_seed
from mist_ext.tuners.divergence import Diverged, largest_norm
from mist_ext.tuners.full import Full
from mist_ext.tuners.tuner import Tuned

ADAPTER = "default"  # peft's name of the only one


class LoRA(Full):
    """Weights W of some linear layers become W + (alpha / rank) B A; A and B alone are tuned.

    Each task begins with new adapters (B is 0) and ends with their product added to W, so that a method sees an
    ordinary backbone. The adapters sit in a copy of the backbone's modules that shares its parameters: the backbone's
    own names and weights stay as they are until the merge. What counts as changed is measured on the weights as they
    would be merged.
    """

    lr_option = "lora_lr"

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self._adapted: Any = None  # peft's model, while a task is tuned

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        if options.layers:
            raise ValueError(
                f"layers is {options.layers!r}, but tuner 'lora' puts adapters where lora_layers says; leave layers out"
            )
        if not _layers(backbone, options.lora_layers):
            raise ValueError(
                f"lora_layers is {options.lora_layers!r}, which matches the name of no linear layer of "
                f"{type(backbone).__name__}; give a regular expression that does"
            )
        for name in _layers(backbone, options.lora_layers):
            layer: Any = backbone.get_submodule(name)
            if options.lora_rank > (most := min(layer.in_features, layer.out_features)):
                raise ValueError(
                    f"lora_rank is {options.lora_rank}, but {name!r} has {layer.in_features} inputs and "
                    f"{layer.out_features} outputs, so no change of it has a rank above {most}; give a smaller one"
                )

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        return [] if self._adapted is None else [(n, p) for n, p in self.network.named_parameters() if ".lora_" in n]

    def values(self) -> Mapping[str, Tensor]:
        weights = {name: p.detach() for name, p in self.backbone.named_parameters()}
        for name in _layers(self.backbone, self.options.lora_layers):
            layer: Any = self.network.get_submodule(name)
            weight = weights[f"{name}.weight"]
            # Added and rounded as the merge does it, so that the bits are those that would remain.
            weights[f"{name}.weight"] = (weight + layer.get_delta_weight(ADAPTER).detach()).to(weight.dtype)
        return weights

    def reached(self) -> float:
        own: Any = self.backbone
        layers = _layers(self.backbone, self.options.lora_layers)
        tuned = sum(own.get_submodule(name).weight.numel() for name in layers)
        return tuned / sum(p.numel() for p in self.backbone.parameters())

    def tune(self, images: Dataset) -> Tuned:
        if self._adapted is None:
            self._attach(self.task + 1)
        tuned = super().tune(images)
        self._adapted.merge_and_unload()
        self._adapted, self.network = None, self.backbone
        if not largest_norm(self.backbone.parameters()).isfinite():
            advice = f"lower --lora-lr ({self.options.lora_lr:g})"
            message = f"task {self.task + 1}: the merged weights are NaN or infinite; {advice}"
            raise agreement.on_every_rank(Diverged(message))
        return tuned

    def _attach(self, task: int) -> None:
        """Put adapters around the layers of a copy of the modules."""
        import peft

        own = [*self.backbone.parameters(), *self.backbone.buffers()]
        wanted = [p.requires_grad for p in self.backbone.parameters()]
        self.network = copy.deepcopy(self.backbone, {id(shared): shared for shared in own})
        options = self.options
        settings = peft.LoraConfig(
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            target_modules=_layers(self.backbone, options.lora_layers),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(self.seed, "lora", task))
            self._adapted = peft.LoraModel(self.network, settings, ADAPTER)
        for parameter, gradient in zip(self.backbone.parameters(), wanted, strict=True):
            parameter.requires_grad_(gradient)  # peft froze them; while tuning, Full does, and undoes it
        for _, parameter in self.trained():
            parameter.data = parameter.data.float()  # small updates of a 16-bit adapter would be rounded away
        if options.compile:
            backbones.compile_blocks(self.network)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "adapters": {name: p.detach().clone() for name, p in self.trained()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["adapters"]:
            self._attach(state["task"])
            fill_(dict(self.trained()), state["adapters"])
        super().load_state_dict(state)


def _layers(backbone: nn.Module, pattern: str) -> list[str]:
    """Return the names of the linear layers that get an adapter."""
    return [
        name for name, layer in backbone.named_modules() if isinstance(layer, nn.Linear) and re.search(pattern, name)
    ]
