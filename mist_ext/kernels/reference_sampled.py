"""`sampled_weight_grad_` in plain PyTorch. A part of `reference`, which says what it is for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.kernels.arguments import check_sampled_weight_grad
from mist_ext.kernels.reference_rule import kept, require_places

_TILE = 64  # tokens whose products are added up before they are added to the gradient
_LANES = 16  # sums of a tile
_ENTRIES = 1 << 16  # gathered at a time, so that memory is bounded


@torch.no_grad()
def sampled_weight_grad_(
    packed: Tensor,
    grad_output: Sequence[Tensor],
    input: Sequence[Tensor],
    index: Sequence[Tensor | None],
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    check_sampled_weight_grad(packed, grad_output, input, index, places, first, ordinal, threshold, seed, step)
    sizes = [gradient.shape[1] * inputs.shape[1] for gradient, inputs in zip(grad_output, input, strict=True)]
    draw = (first, ordinal, threshold, seed, int(step))
    require_places("sampled_weight_grad_", packed, places, sizes, index, *draw, longer=True)
    begins = first or [0] * len(sizes)
    at = 0
    for t, (gradient, inputs) in enumerate(zip(grad_output, input, strict=True)):
        rule = (seed, ordinal[t], int(step), threshold, begins[t])
        _, position = kept(sizes[t], index[t], packed.device, *rule)
        for part in position.split(_ENTRIES):
            _add_products(packed.view(-1)[at : at + len(part)], gradient, inputs, part)
            at += len(part)


def _add_products(values: Tensor, gradient: Tensor, inputs: Tensor, position: Tensor) -> None:
    """Add to each value, tile by tile, the products of its row and column over the tokens."""
    width = inputs.shape[1]
    row, column = position // max(width, 1), position % max(width, 1)
    for begin in range(0, len(inputs), _TILE):
        y, x = gradient[begin : begin + _TILE], inputs[begin : begin + _TILE]
        product = torch.zeros(_TILE, len(position), device=values.device)
        product[: len(y)] = y[:, row].float() * x[:, column].float()
        lanes = torch.zeros(_LANES, len(position), device=values.device)
        for later in product.split(_LANES):
            lanes = lanes + later
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        values += lanes[0]
