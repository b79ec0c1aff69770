"""The ops in plain PyTorch: their definition, the oracle of the compiled ones, and the fallback.

Each function takes what its namesake in `ops` takes. Every product and sum is rounded on its own in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mist_ext.kernels.arguments import (
    DropApply,
    check_accumulate,
    check_drop_apply_adamw,
    check_drop_apply_sgd,
    check_keep_mask,
    check_mask,
    check_pack,
    check_places,
    check_select,
)
from mist_ext.kernels.bit_packing import pack_bits as pack_bits
from mist_ext.kernels.bit_packing import unpack_bits as unpack_bits
from mist_ext.kernels.checker import PIECE, Checker, selected_entries
from mist_ext.kernels.value_reference import decode_gaps as decode_gaps
from mist_ext.kernels.value_reference import encode_gaps as encode_gaps
from mist_ext.kernels.value_reference import write_values_ as write_values_

_WORD = 0xFFFFFFFF


def philox4x32(key: tuple[int, int], counter: Sequence[Tensor | int]) -> list[Tensor]:
    """Return ten rounds of Philox4x32 (Salmon et al., SC 2011).

    Parameters
    ----------
    key : tuple of int
        Two 32-bit words.
    counter : sequence
        Four 32-bit words, ints or int64 tensors that broadcast.

    Returns
    -------
    list of Tensor
        Four int64 tensors of 32-bit words.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*(torch.as_tensor(c, dtype=torch.int64) for c in counter))
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap around as unsigned ones do; the shift's sign bits are masked away.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def keep_mask(seed: int, ordinal: int, step: int, n: int, threshold: int, first: int = 0) -> Tensor:
    """Return which of a selection's ``n`` entries from ``first`` on are kept: bool, ``[n]``, on the CPU.

    A pure function of (seed, ordinal, step, entry); no device, thread or rank appears in it.
    """
    check_keep_mask(seed, ordinal, step, n, threshold, first)
    groups = torch.arange(first // 8, (first + n + 7) // 8)
    words = philox4x32((seed & _WORD, seed >> 32 & _WORD), (groups, ordinal, step & _WORD, step >> 32 & _WORD))
    draws = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=1)
    return draws.flatten()[first % 8 :][:n] < threshold


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


def _kept(
    tensor: Tensor, index: Tensor | None, seed: int, ordinal: int, step: int, threshold: int, first: int
) -> tuple[Tensor, Tensor]:
    """Return the positions of the kept entries in this part of the selection, and in the tensor."""
    mask = keep_mask(seed, ordinal, step, selected_entries(tensor.numel(), index), threshold, first)
    position = mask.nonzero().flatten().to(tensor.device)
    return position, position if index is None else index.flatten()[position].long()


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
        _check_places(op, given.packed, given.places, given.param, given.index, *draw)
    if given.found_inf is not None and given.found_inf.item():
        return
    first, taken = given.first or [0] * len(given.param), 0
    kept = [
        _kept(tensor, given.index[t], given.seed, given.ordinal[t], step, given.threshold, first[t])
        for t, tensor in enumerate(given.param)
    ]
    for t, (tensor, (j, at)) in enumerate(zip(given.param, kept, strict=True)):
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
        j, at = _kept(gradient, index[t], seed, ordinal[t], int(step), threshold, begins[t])
        kept = gradient.flatten()[at]
        code = scale_code[t] if scale_code else None
        if code is not None:
            assert table is not None
            kept = (kept.float() * table.flatten()[code.flatten()[j].long()]).to(gradient.dtype)
        gradient.zero_()
        gradient.view(-1)[at] = kept


def places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> Tensor:
    check_places(count, first, ordinal, threshold, seed, step)
    return _places(count, first, ordinal, threshold, seed, step)


def _places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> Tensor:
    kept = [torch.zeros(1, dtype=torch.int64)]
    for n, begin, number in zip(count, first or [0] * len(count), ordinal, strict=True):
        mask = keep_mask(seed, number, step, n, threshold, begin)
        piece = (begin + torch.arange(n)) // PIECE - begin // PIECE
        kept.append(torch.bincount(piece[mask], minlength=int(piece[-1]) + 1 if n else 0))
    return torch.cat(kept).cumsum(0)


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
    _check_places("pack_", packed, places, grad, index, first, ordinal, threshold, seed, int(step))
    begins = first or [0] * len(grad)
    taken = [
        gradient.flatten()[_kept(gradient, index[t], seed, ordinal[t], int(step), threshold, begins[t])[1]].float()
        for t, gradient in enumerate(grad)
    ]
    packed.view(-1).copy_(torch.cat(taken))


def _check_places(
    op: str, packed: Tensor, places: Tensor, tensors: Sequence[Tensor], index: Sequence[Tensor | None], *draw: Any
) -> None:
    """Raise RuntimeError unless the places are those of this draw, and the packed vector is as long as they say."""
    made = _places([selected_entries(t.numel(), where) for t, where in zip(tensors, index, strict=True)], *draw)
    checker, (length, kept) = Checker(op), (packed.numel(), int(made[-1]))
    again = "make them by ops.places for the same lists and step"
    checker.require(torch.equal(places.flatten().cpu(), made), f"places do not fit what this step keeps; {again}")
    checker.require(length == kept, f"packed has {length} entries, but places end at {kept}")
