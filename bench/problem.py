"""A model's parameter list with gradients, scores and a selection: what every benchmark works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mist_ext import ops
from mist_ext.selection import selected_count

RATE, KEEP, SEED = 0.05, 0.1, 1993
LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4
MODELS = {
    "vit_ti": "vit_tiny_patch16_224",
    "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224",
    "vit_l": "vit_large_patch16_224",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def parameter_shapes(model: str) -> list[tuple[int, ...]]:
    """The shapes of a timm model's parameters, without the classifier; no memory is used for weights."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(MODELS.get(model, model), num_classes=0)
    return [tuple(p.shape) for p in network.parameters()]


@dataclass
class Problem:
    """Random tensors of a model's shapes.

    Attributes
    ----------
    model : str
        A key of ``MODELS`` or a timm name.
    dtype : torch.dtype
        Of parameters and gradients.
    device : torch.device
    """

    model: str
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device).manual_seed(SEED)
        self.shapes = parameter_shapes(self.model)
        self.step = torch.zeros((), dtype=torch.int64, device=self.device)
        self.lr = torch.full((), LR, device=self.device)
        self.threshold = ops.keep_threshold(KEEP)

    def _normal(self, scale: float) -> list[Tensor]:
        options = {"generator": self.generator, "device": self.device}
        return [torch.randn(shape, **options).mul_(scale).to(self.dtype) for shape in self.shapes]

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def param(self) -> list[Tensor]:
        return self._normal(0.02)

    @cached_property
    def grad(self) -> list[Tensor]:
        return self._normal(0.01)

    @cached_property
    def score(self) -> list[Tensor]:
        """Squares of normal numbers over nine decades, as sensitivities are."""
        return [(10 * g.float()).pow(4) for g in self._normal(1.0)]

    @property
    def by_score(self) -> list[int]:
        """Positions of the tensors that are selected by score, the others whole."""
        return [i for i, shape in enumerate(self.shapes) if len(shape) > 1]

    @cached_property
    def count(self) -> list[int]:
        """Selected entries of the tensors selected by score."""
        return [selected_count(math.prod(self.shapes[i]), RATE) for i in self.by_score]

    @cached_property
    def index(self) -> list[Tensor | None]:
        chosen = iter(ops.select([self.score[i] for i in self.by_score], self.count))
        return [next(chosen) if len(shape) > 1 else None for shape in self.shapes]

    @cached_property
    def selected(self) -> list[int]:
        return [math.prod(s) if i is None else i.numel() for s, i in zip(self.shapes, self.index, strict=True)]

    def compact(self) -> list[Tensor]:
        """Zeros, one for each selected entry."""
        return [torch.zeros(count, device=self.device) for count in self.selected]

    @cached_property
    def master(self) -> list[Tensor]:
        if self.dtype == torch.float32:
            return []
        flat = [p.view(-1) for p in self.param]
        return [(p if i is None else p[i.long()]).float() for p, i in zip(flat, self.index, strict=True)]

    def drop_apply(self, implementation=ops.drop_apply_sgd_) -> None:
        """One step of this project, on this problem's own parameters and momentum."""
        nothing = [None] * len(self.shapes)
        self.step += 1
        arguments = {
            "lr": self.lr,
            "momentum": MOMENTUM,
            "weight_decay": WEIGHT_DECAY,
            "threshold": self.threshold,
            "seed": SEED,
            "step": self.step,
            "found_inf": None,
            "grad_scale": None,
        }
        implementation(
            self.param,
            self.grad,
            self.index,
            self.momentum,
            self.master,
            nothing,
            None,
            list(range(len(self.shapes))),
            **arguments,
        )

    @cached_property
    def momentum(self) -> list[Tensor]:
        return self.compact()
