"""The ways to take a whole tuning step that bench/throughput.py compares."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.optim import InBackward, SampledGradients, SparseSGD
from mist_ext.selection import Selection
from mist_ext.tuners.objective import MutualInformation

RATE, KEEP, SEED = 0.05, 0.1, 1993
SGD: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


class Way:
    """One way to take a step, with a model, projector and optimiser of its own."""

    compiled = True

    def __init__(self, model: nn.Module, selection: Selection, precision: str, compile_blocks: bool) -> None:
        self.model = copy.deepcopy(model).train()
        self.device = next(model.parameters()).device
        torch.manual_seed(SEED)
        self.objective = MutualInformation(model.num_features).to(self.device)
        self.selection = selection
        self.precision = precision
        if self.compiled and compile_blocks:
            for block in self.model.blocks:
                block.compile()
        self.prepare()

    def prepare(self) -> None:
        """Make what the step needs."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with mixed:
            return self.objective(self.model(images), labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.loss(images, labels).backward()
        self.update()

    def update(self) -> None:
        """Use the gradients and free them."""
        for p in self.model.parameters():
            p.grad = None


class ForwardBackward(Way):
    """No update."""


class Full(Way):
    def prepare(self) -> None:
        self.sgd = torch.optim.SGD(self.model.parameters(), **SGD, fused=True)

    def update(self) -> None:
        self.sgd.step()
        self.sgd.zero_grad()


class PublishedMasks(Way):
    """Dense masks, op by op."""

    def prepare(self) -> None:
        self.sgd = torch.optim.SGD(self.model.parameters(), **SGD)
        self.masks, self.counts = [], []
        for name, p in self.model.named_parameters():
            mask = torch.zeros_like(p, dtype=torch.bool)
            index = self.selection[name]
            if index is None:
                mask.fill_(True)
            else:
                mask.view(-1)[index.long().to(p.device)] = True
            self.masks.append(mask)
            self.counts.append(torch.zeros_like(p))

    def update(self) -> None:
        for p, mask, count in zip(self.model.parameters(), self.masks, self.counts, strict=True):
            keep = torch.zeros_like(p)
            keep[mask] = torch.bernoulli(torch.full((int(mask.sum()),), KEEP, device=p.device))
            p.grad = p.grad * keep * 0.9**count
        self.sgd.step()
        self.sgd.zero_grad()


class Published(PublishedMasks):
    compiled = False


class Ours(Way):
    def prepare(self) -> None:
        named = list(self.model.named_parameters())
        self.sgd = SparseSGD(named, self.selection, keep=KEEP, seed=SEED, **SGD)
        self.within = InBackward(self.sgd).__enter__()

    def update(self) -> None:
        self.sgd.step()


class Sampled(Ours):
    def prepare(self) -> None:
        named = list(self.model.named_parameters())
        self.sgd = SparseSGD(named, self.selection, keep=KEEP, seed=SEED, **SGD)
        self.within = SampledGradients(self.sgd, self.model).__enter__()

    def update(self) -> None:
        self.sgd.step()
        self.sgd.zero_grad()


WAYS: dict[str, type[Way]] = {
    "published": Published,
    "full": Full,
    "published masks": PublishedMasks,
    "mist_ext": Ours,
    "sampled": Sampled,
    "forward+backward": ForwardBackward,
}
