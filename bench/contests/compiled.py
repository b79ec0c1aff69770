"""`torch.compile` of an op's rule over lists of tensors, layer by layer.

One graph for a whole model compiles for most of a minute, and one call a tensor costs 40 µs each. A vision
transformer's blocks have equal shapes, so one graph for a block is compiled once and called for each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from models import Layout
from torch import Tensor


def compiled(rule: Callable[..., None], layout: Layout, *lists: list[Tensor]) -> Callable[..., None]:
    """A call of ``rule(*tensors, *shared)`` for each position of the lists; ``shared`` are the call's arguments."""
    torch._dynamo.reset()  # forget other rules and numbers of threads, which count against a limit

    def layer(parts: list[list[Tensor]], shared: tuple[Tensor, ...]) -> None:
        for tensors in zip(*parts, strict=True):
            rule(*tensors, *shared)

    fast = torch.compile(layer, dynamic=False, fullgraph=True)
    layers = [[[tensors[i] for i in block] for tensors in lists] for block in layout.blocks]

    @torch.no_grad()
    def call(*shared: Tensor) -> None:
        for parts in layers:
            fast(parts, shared)

    return call
