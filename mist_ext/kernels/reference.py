"""The ops in plain PyTorch: their definition, the oracle of the compiled ones, and the fallback.

Each function takes what its namesake in `ops` takes. Every product and sum is rounded on its own in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mist_ext.kernels.arguments import (
    DropApply,
    check_accumulate,
    check_drop_apply_adamw,
    check_drop_apply_sgd,
    check_mask,
    check_pack,
    check_places,
    check_select,
)
from mist_ext.kernels.bit_packing import pack_bits as pack_bits
from mist_ext.kernels.bit_packing import unpack_bits as unpack_bits
from mist_ext.kernels.reference_rule import keep_mask as keep_mask
from mist_ext.kernels.reference_rule import kept, made_places, require_places
from mist_ext.kernels.reference_rule import philox4x32 as philox4x32
from mist_ext.kernels.reference_sampled import sampled_weight_grad_ as sampled_weight_grad_
from mist_ext.kernels.reference_values import decode_gaps as decode_gaps
from mist_ext.kernels.reference_values import encode_gaps as encode_gaps
from mist_ext.kernels.reference_values import write_values_ as write_values_


@torch.no_grad()
def accumulate_(score: Sequence[Tensor], grad: Sequence[Tensor], frozen: Sequence[Tensor | None], scale: float) -> None:
    check_accumulate(score, grad, frozen)
    for total, gradient, bits in zip(score, grad, frozen, strict=True):
        new = total + gradient.float().square().mul_(scale)
        total.copy_(new if bits is None else torch.where(unpack_bits(bits, total.numel()).view_as(new), total, new))


def select(score: Sequence[Tensor], k: Sequence[int]) -> list[Tensor]:
    check_select(score, k)
    # A stable sort keeps equal scores in order of position.
    return [
        scores.flatten().sort(descending=True, stable=True).indices[:count].sort().values.int()
        for scores, count in zip(score, k, strict=True)
    ]


@torch.no_grad()
def drop_apply_sgd_(
    param: Sequence[Tensor],
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    momentum_buffer: Sequence[Tensor],
    master: Sequence[Tensor],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    lr: Tensor,
    momentum: float,
    weight_decay: float,
    threshold: int,
    seed: int,
    step: Tensor,
    found_inf: Tensor | None,
    grad_scale: Tensor | None,
    first: Sequence[int] = (),
    packed: Tensor | None = None,
    places: Tensor | None = None,
) -> None:
    given = DropApply(
        param, grad, index, master, scale_code, table, ordinal, lr, threshold, seed, step, found_inf, grad_scale, first,
        packed, places,
    )  # fmt: skip
    check_drop_apply_sgd(given, momentum_buffer, momentum)
    rate = lr.reshape(())

    def update(t: int, j: Tensor, g: Tensor, value: Tensor) -> Tensor:
        g = g + value * weight_decay
        g = (momentum_buffer[t].view(-1)[j] if momentum_buffer else torch.zeros_like(g)) * momentum + g
        if momentum_buffer:
            momentum_buffer[t].view(-1)[j] = g
        return value - g * rate

    _drop_apply("drop_apply_sgd_", given, update)


@torch.no_grad()
def drop_apply_adamw_(
    param: Sequence[Tensor],
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    updates: Sequence[Tensor],
    master: Sequence[Tensor],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    lr: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    correction: Tensor,
    threshold: int,
    seed: int,
    step: Tensor,
    found_inf: Tensor | None,
    grad_scale: Tensor | None,
    first: Sequence[int] = (),
    packed: Tensor | None = None,
    places: Tensor | None = None,
) -> None:
    given = DropApply(
        param, grad, index, master, scale_code, table, ordinal, lr, threshold, seed, step, found_inf, grad_scale, first,
        packed, places,
    )  # fmt: skip
    check_drop_apply_adamw(given, exp_avg, exp_avg_sq, updates, correction)
    rate = lr.reshape(())

    def update(t: int, j: Tensor, g: Tensor, value: Tensor) -> Tensor:
        count = updates[t].view(-1)[j] + 1
        average = exp_avg[t].view(-1)[j] * beta1 + g * (1 - beta1)
        square = exp_avg_sq[t].view(-1)[j] * beta2 + g * g * (1 - beta2)
        last = correction.shape[1] - 1
        bias, root_bias = correction[:, torch.where((count < 0) | (count > last), last, count).long()]
        root = square.double().sqrt().float()  # torch's float32 root is not always the nearest number
        updates[t].view(-1)[j] = count
        exp_avg[t].view(-1)[j] = average
        exp_avg_sq[t].view(-1)[j] = square
        return value * (1 - rate * weight_decay) - average / bias / (root / root_bias + eps) * rate

    _drop_apply("drop_apply_adamw_", given, update)


def _drop_apply(op: str, given: DropApply, update: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Write ``update(tensor number, positions, gradients, values)`` to each tensor's kept entries."""
    step = int(given.step)
    if given.packed is not None and given.places is not None:
        draw = (given.first, given.ordinal, given.threshold, given.seed, step)
        sizes = [tensor.numel() for tensor in given.param]
        require_places(op, given.packed, given.places, sizes, given.index, *draw)
    if given.found_inf is not None and given.found_inf.item():
        return
    first, taken = given.first or [0] * len(given.param), 0
    draws = [(given.seed, given.ordinal[t], step, given.threshold, first[t]) for t in range(len(given.param))]
    chosen = [kept(p.numel(), given.index[t], p.device, *draws[t]) for t, p in enumerate(given.param)]
    for t, (tensor, (j, at)) in enumerate(zip(given.param, chosen, strict=True)):
        if given.packed is None:
            g = given.grad[t].flatten()[at].float()
        else:
            g = given.packed.flatten()[taken : taken + len(j)].float()
            taken += len(j)
        if given.grad_scale is not None:
            g = g / given.grad_scale.reshape(())
        code = given.scale_code[t] if given.scale_code else None
        if code is not None:
            assert given.table is not None
            g = g * given.table.flatten()[code.flatten()[j].long()]
        flat = tensor.view(-1)
        wide = tensor.dtype == torch.float32
        value = update(t, j, g, flat[at] if wide else given.master[t].view(-1)[j])
        if not wide:
            given.master[t].view(-1)[j] = value
        flat[at] = value.to(tensor.dtype)


@torch.no_grad()
def mask_(
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
    first: Sequence[int] = (),
) -> None:
    check_mask(grad, index, scale_code, table, ordinal, threshold, seed, step, first)
    begins = first or [0] * len(grad)
    for t, gradient in enumerate(grad):
        j, at = kept(gradient.numel(), index[t], gradient.device, seed, ordinal[t], int(step), threshold, begins[t])
        value = gradient.flatten()[at]
        code = scale_code[t] if scale_code else None
        if code is not None:
            assert table is not None
            value = (value.float() * table.flatten()[code.flatten()[j].long()]).to(gradient.dtype)
        gradient.zero_()
        gradient.view(-1)[at] = value


def places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> Tensor:
    check_places(count, first, ordinal, threshold, seed, step)
    return made_places(count, first, ordinal, threshold, seed, step)


@torch.no_grad()
def pack_(
    packed: Tensor,
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    check_pack(packed, grad, index, places, first, ordinal, threshold, seed, step)
    sizes = [gradient.numel() for gradient in grad]
    require_places("pack_", packed, places, sizes, index, first, ordinal, threshold, seed, int(step))
    begins = first or [0] * len(grad)
    taken = [
        gradient.flatten()[
            kept(gradient.numel(), index[t], gradient.device, seed, ordinal[t], int(step), threshold, begins[t])[1]
        ].float()
        for t, gradient in enumerate(grad)
    ]
    packed.view(-1).copy_(torch.cat(taken))
