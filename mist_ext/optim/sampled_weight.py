"""Weights whose gradients are sampled, and the draw of the entries that a group's next step keeps."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from mist_ext.kernels import ops
from mist_ext.kernels.checker import piece_count
from mist_ext.optim.kept_gradient import Drawn

SIGMAS = 6  # above the mean number of kept entries; a step in 10^9 keeps more


WEIGHTS: WeakValueDictionary[int, SampledWeight] = WeakValueDictionary()
_KEYS = itertools.count()


@dataclass(eq=False)
class SampledWeight:
    """A weight, and what its layer's backward pass has to know of the next step's kept entries.

    What differs between steps and between layers of a shape are tensors, so that one compiled graph serves them all.
    """

    name: str
    parameter: Tensor | None  # None once the context is left
    index: Tensor | None
    count: int  # of selected entries
    ordinal: int
    draw: Draw
    proxy: Tensor | None = None  # float32 [capacity], a leaf: its gradient is the vector of the kept entries'
    rule: Tensor = field(init=False)  # int64 on the host: ordinal, threshold, seed, and the key in WEIGHTS
    places: Tensor = field(init=False)  # int64, of this weight alone, on the weight's device
    offsets: Tensor = field(init=False)  # the same on the host
    kept: int = field(init=False)
    pending: bool = False  # a gradient was computed that has not arrived

    def __post_init__(self) -> None:
        assert self.parameter is not None
        self.dtype, self.device = self.parameter.dtype, self.parameter.device
        key = next(_KEYS)
        WEIGHTS[key] = self
        self.rule = torch.tensor([self.ordinal, 0, self.draw.seed, key])

    def refuse_moved(self, parameter: Tensor) -> None:
        """Raise RuntimeError if the weight has another dtype or device than when the context was entered."""
        if parameter.dtype != self.dtype or parameter.device != self.device:
            raise RuntimeError(
                f"{self.name!r} is {parameter.dtype} on {parameter.device}, and was {self.dtype} on {self.device} when "
                "SampledGradients was entered and the optimiser was made; convert or move a model before that"
            )


class Draw:
    """The entries that the next step of a parameter group keeps, drawn before its forward pass.

    Parameters
    ----------
    group : dict
        The parameter group.
    seed : int
        Of the optimiser.
    share : callable
        Returns the probability that the step of a group needs a selected entry's gradient.
    arrive : callable
        Called with a weight and its proxy when backward has made the proxy's gradient.
    """

    def __init__(
        self,
        group: dict[str, Any],
        seed: int,
        share: Callable[[dict[str, Any]], float | None],
        arrive: Callable[[SampledWeight, Tensor], None],
    ) -> None:
        self.group = group
        self.seed = seed
        self.share = share
        self.arrive = arrive
        self.weights: list[SampledWeight] = []
        self.step = torch.zeros_like(group["step"])
        self.drawn: Drawn | None = None
        self.keep = -1.0  # that the drawn threshold was made of

    @property
    def current(self) -> Drawn:
        """What the kept entries were drawn by."""
        assert self.drawn is not None
        return self.drawn

    @property
    def needed(self) -> float:
        """The probability that a step needs a selected entry's gradient, as the group's options are now."""
        share = self.share(self.group)
        assert share is not None
        return share

    @torch.no_grad()
    def renew(self, step: int) -> None:
        """Draw the entries that this step keeps, unless they are drawn already."""
        self.keep = self.needed
        drawn = Drawn(step, ops.keep_threshold(self.keep))
        if drawn == self.drawn:
            return
        ordinals = [weight.ordinal for weight in self.weights]
        counts = [weight.count for weight in self.weights]
        rule = {"threshold": drawn.threshold, "seed": self.seed}
        offsets = ops.places(counts, [0] * len(counts), ordinals, step=step, **rule)
        begin, own = 0, []
        for weight in self.weights:
            end = begin + piece_count([weight.count], [])
            own.append(offsets[begin : end + 1] - offsets[begin])
            begin = end
        self._put(torch.cat(own), [len(one) for one in own])
        for weight, one in zip(self.weights, own, strict=True):
            weight.offsets, weight.kept = one, int(one[-1])
            weight.rule[1] = drawn.threshold
            if weight.proxy is None or weight.proxy.numel() < weight.kept:
                self._enlarge(weight, drawn.threshold)
        self.step.fill_(step)
        self.drawn = drawn

    def changed(self) -> None:
        """Draw anew where the group's keep has changed since the last step."""
        self.renew(self.current.step)

    def _enlarge(self, weight: SampledWeight, threshold: int) -> None:
        """Give a weight a proxy that has room for what steps keep."""
        size = max(weight.kept, capacity(weight.count, threshold))
        weight.proxy = torch.zeros(size, device=self.step.device).requires_grad_()
        weight.proxy.register_post_accumulate_grad_hook(functools.partial(self.arrive, weight))

    def _put(self, places: Tensor, sizes: list[int]) -> None:
        """Write all weights' places to their device at once, into the same memory in every step."""
        if self.drawn is None:
            self._places = torch.empty_like(places, device=self.step.device)
            for weight, part in zip(self.weights, self._places.split(sizes), strict=True):
                weight.places = part
        if self.step.is_cuda:
            places = places.pin_memory()
        self._places.copy_(places, non_blocking=True)

    def joined(self, chosen: list[SampledWeight]) -> Tensor:
        """Return the places of some weights' kept entries in one vector: int64 on the weights' device."""
        total, parts = 0, []
        for weight in chosen:
            parts.append(weight.offsets[:-1] + total)
            total += weight.kept
        places = torch.cat([*parts, torch.tensor([total])])
        return places.pin_memory().to(self.step.device, non_blocking=True) if self.step.is_cuda else places


def capacity(count: int, threshold: int) -> int:
    """Return how many of ``count`` entries a step keeps at most, but for a chance of one in 10^9."""
    share = threshold / 65536
    return min(count, math.ceil(count * share + SIGMAS * math.sqrt(count * share * (1 - share))) + SIGMAS)
