"""Random tensors of a model's shapes, a selection of them, and ours to run on them: what every benchmark works on.

Everything that has a contestant's numbers is made when it is first used and shared by all contestants, so that the
largest models fit: they write to the same parameters in turn, and what they compute is verified elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from models import Layout
from torch import Tensor

from mist_ext.indices import selected_count
from mist_ext.kernels import ops
from mist_ext.optim.adamw import bias_correction

RATE, KEEP, SEED = 0.05, 0.1, 1993
MOMENTUM, BETAS, EPS = 0.9, (0.9, 0.999), 1e-8
ADD_AT_MOST = 2**27  # entries of the pair of tensors that is added beside a step


@dataclass
class Problem:
    """The tensors of one model.

    Attributes
    ----------
    layout : Layout
    dtype : torch.dtype
        Of parameters and gradients; scores and optimiser state are float32.
    device : torch.device
    lr, weight_decay : float
    tokens : int
        Of the operands of one block's linear layers: as many as so many patches of a batch.
    own_draw : bool
        Whether a rival draws the entries that a step keeps with torch (for timing) or takes ours (for verifying).
    """

    layout: Layout
    dtype: torch.dtype
    device: torch.device
    lr: float = 1e-4
    weight_decay: float = 5e-4
    tokens: int = 1576  # 8 images of 197
    own_draw: bool = True
    step: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = self.layout.shapes
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.parameters = sum(self.sizes)
        self.step = torch.zeros((), dtype=torch.int64, device=self.device)
        self.threshold = ops.keep_threshold(KEEP)

    def forget(self, *names: str) -> None:
        """Free what was made for contests that are over; it would be made anew."""
        for name in names:
            self.__dict__.pop(name, None)

    def normal(self, scale: float, dtype: torch.dtype, seed: int) -> list[Tensor]:
        """Random tensors of the model's shapes."""
        generator = torch.Generator(self.device).manual_seed(seed)
        options: dict[str, Any] = {"generator": generator, "device": self.device}
        return [torch.randn(shape, **options).mul_(scale).to(dtype) for shape in self.shapes]

    @cached_property
    def param(self) -> list[Tensor]:
        return self.normal(0.02, self.dtype, 1)

    @cached_property
    def grad(self) -> list[Tensor]:
        return self.normal(0.01, self.dtype, 2)

    @property
    def linear(self) -> list[int]:
        """Positions of the weights of one block's linear layers, all blocks of a model having the same."""
        weights = [[i for i in block if len(self.shapes[i]) == 2] for block in self.layout.blocks]
        return max(weights, key=len)

    @cached_property
    def operands(self) -> list[tuple[Tensor, Tensor]]:
        """The gradients of those layers' outputs and their inputs: [tokens, out] and [tokens, in] each."""
        generator = torch.Generator(self.device).manual_seed(4)

        def drawn(features: int, scale: float) -> Tensor:
            made = torch.randn(self.tokens, features, generator=generator, device=self.device)
            return made.mul_(scale).to(self.dtype)

        return [(drawn(self.shapes[i][0], 0.01), drawn(self.shapes[i][1], 1.0)) for i in self.linear]

    @cached_property
    def score(self) -> list[Tensor]:
        """Fourth powers of normal numbers: over many decades, as sensitivities are."""
        return [scores.mul_(10).pow_(4) for scores in self.normal(1.0, torch.float32, 3)]

    @property
    def by_score(self) -> list[int]:
        """Positions of the tensors that are selected by score, the others whole."""
        return [i for i, shape in enumerate(self.shapes) if len(shape) > 1]

    @property
    def count(self) -> list[int]:
        """Selected entries of the tensors selected by score."""
        return [selected_count(self.sizes[i], RATE) for i in self.by_score]

    @cached_property
    def index(self) -> list[Tensor | None]:
        chosen = iter(ops.select([self.score[i] for i in self.by_score], self.count))
        return [next(chosen) if len(shape) > 1 else None for shape in self.shapes]

    @cached_property
    def selected(self) -> list[int]:
        return [size if index is None else index.numel() for size, index in zip(self.sizes, self.index, strict=True)]

    def compact(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Zeros, one for each selected entry."""
        return [torch.zeros(count, dtype=dtype, device=self.device) for count in self.selected]

    def masters(self) -> list[Tensor]:
        """float32 copies of the selected entries of 16-bit parameters."""
        if self.dtype == torch.float32:
            return []
        flat = [p.view(-1) for p in self.param]
        return [(p if i is None else p[i.long()]).float() for p, i in zip(flat, self.index, strict=True)]

    def ours(self, t: int, step: int) -> Tensor:
        """Which of tensor t's selected entries our step keeps: bool, one a selected entry."""
        return ops.keep_mask(SEED, t, step, self.selected[t], self.threshold).to(self.device)

    def draw(self) -> Tensor:
        """Positions among all selected entries that the next step keeps: int64, ascending.

        One draw for the whole model, in the dtype that torch's generator fills fastest.
        """
        if self.own_draw:
            kept = torch.empty(sum(self.selected), dtype=torch.uint8, device=self.device).bernoulli_(KEEP).bool()
        else:
            kept = torch.cat([self.ours(t, int(self.step)) for t in range(len(self.shapes))])
        return kept.nonzero().view(-1)

    def drawing(self) -> dict[str, Any]:
        """The arguments of our draw."""
        return {"threshold": self.threshold, "seed": SEED, "step": self.step}

    def updating(self) -> dict[str, Any]:
        """The arguments that both rules' steps have in common."""
        return {
            "param": self.param,
            "grad": self.grad,
            "index": self.index,
            "master": self.masters(),
            "scale_code": [],
            "table": None,
            "ordinal": list(range(len(self.shapes))),
            "lr": torch.full((), self.lr, device=self.device),
            "weight_decay": self.weight_decay,
            "found_inf": None,
            "grad_scale": None,
            **self.drawing(),
        }

    def sgd(self) -> dict[str, Any]:
        """All arguments of `ops.drop_apply_sgd_`, with a new momentum."""
        return {**self.updating(), "momentum_buffer": self.compact(), "momentum": MOMENTUM}

    def adamw(self) -> dict[str, Any]:
        """All arguments of `ops.drop_apply_adamw_`, with new averages."""
        own = {"exp_avg": self.compact(), "exp_avg_sq": self.compact(), "updates": self.compact(torch.int32)}
        own |= {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS}
        return {**self.updating(), **own, "correction": bias_correction(*BETAS, self.device)}

    @cached_property
    def dense_mask(self) -> list[Tensor]:
        """One draw as dense ones and zeros in the gradients' dtype: what a dense rival is given ready-made."""
        masks = [torch.zeros(size, dtype=self.dtype, device=self.device) for size in self.sizes]
        starts = [0]
        for count in self.selected:
            starts.append(starts[-1] + count)
        kept = self.draw()
        cuts = torch.searchsorted(kept, torch.tensor(starts, device=self.device)).tolist()
        for t, mask in enumerate(masks):
            at = kept[cuts[t] : cuts[t + 1]] - starts[t]
            index = self.index[t]
            mask[at if index is None else index[at].long()] = 1
        return [mask.view(shape) for mask, shape in zip(masks, self.shapes, strict=True)]

    @cached_property
    def dense_grad(self) -> list[Tensor]:
        """Gradients that a dense rival may mask in place, over and over."""
        return [g.clone() for g in self.grad]

    @cached_property
    def pair(self) -> tuple[list[Tensor], list[Tensor]]:
        """Two float32 tensors of as many entries as the model, at most 2^27, for ``a.add_(b)``."""
        size = min(self.parameters, ADD_AT_MOST)
        return [torch.zeros(size, device=self.device)], [torch.ones(size, device=self.device)]
