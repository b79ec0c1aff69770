"""The ops in plain PyTorch: what they mean, the compiled ones' oracle, and the fallback where nothing was compiled.

Each function takes what its namesake in `mist_ext.ops` takes. Every product and sum is rounded on its own in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mist_ext.arguments import (
    DropApply,
    check_accumulate,
    check_drop_apply_adamw,
    check_drop_apply_sgd,
    check_mask,
    check_select,
)

_WORD = 0xFFFFFFFF


def philox4x32(key: tuple[int, int], counter: Sequence[Tensor | int]) -> list[Tensor]:
    """Ten rounds of Philox4x32 (Salmon et al., SC 2011).

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


def keep_mask(seed: int, ordinal: int, step: int, n: int, threshold: int) -> Tensor:
    """Which of the first ``n`` entries of a tensor's selection keep their gradient: bool, ``[n]``, on the CPU.

    A pure function of (seed, ordinal, step, entry): neither devices nor threads nor ranks appear in it.
    """
    groups = torch.arange((n + 7) // 8)
    words = philox4x32((seed & _WORD, seed >> 32 & _WORD), (groups, ordinal, step & _WORD, step >> 32 & _WORD))
    draws = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=1)
    return draws.flatten()[:n] < threshold


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
    index: Tensor | None, selected: int, device: torch.device, seed: int, ordinal: int, step: int, threshold: int
) -> tuple[Tensor, Tensor]:
    """Positions of the kept entries in the selection, and in the tensor."""
    position = keep_mask(seed, ordinal, step, selected, threshold).nonzero().flatten().to(device)
    return position, position if index is None else index[position].long()


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
) -> None:
    given = DropApply(
        param, grad, index, master, scale_code, table, ordinal, lr, threshold, seed, step, found_inf, grad_scale
    )
    check_drop_apply_sgd(given, momentum_buffer, momentum)

    def update(t: int, j: Tensor, g: Tensor, value: Tensor) -> Tensor:
        g = g + value * weight_decay
        g = (momentum_buffer[t].view(-1)[j] if momentum_buffer else torch.zeros_like(g)) * momentum + g
        if momentum_buffer:
            momentum_buffer[t].view(-1)[j] = g
        return value - g * lr

    _drop_apply(given, update)


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
) -> None:
    given = DropApply(
        param, grad, index, master, scale_code, table, ordinal, lr, threshold, seed, step, found_inf, grad_scale
    )
    check_drop_apply_adamw(given, exp_avg, exp_avg_sq, updates, correction)

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
        return value * (1 - lr * weight_decay) - average / bias / (root / root_bias + eps) * lr

    _drop_apply(given, update)


def _drop_apply(given: DropApply, update: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Hand each tensor's kept entries to ``update(tensor number, places, gradients, values)`` and write its values."""
    if given.found_inf is not None and given.found_inf.item():
        return
    for t, (tensor, gradient) in enumerate(zip(given.param, given.grad, strict=True)):
        where = given.index[t]
        selected = tensor.numel() if where is None else where.numel()
        step = int(given.step)
        j, at = _kept(where, selected, tensor.device, given.seed, given.ordinal[t], step, given.threshold)
        g = gradient.flatten()[at].float()
        if given.grad_scale is not None:
            g /= given.grad_scale
        code = given.scale_code[t] if given.scale_code else None
        if code is not None:
            assert given.table is not None
            g *= given.table[code[j].long()]
        flat = tensor.view(-1)
        wide = tensor.dtype == torch.float32
        value = update(t, j, g, flat[at] if wide else given.master[t].view(-1)[j])
        if not wide:
            given.master[t].view(-1)[j] = value
        flat[at] = value.to(tensor.dtype)


def mask_(
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    check_mask(grad, index, scale_code, table, ordinal, threshold, step)
    for t, gradient in enumerate(grad):
        where = index[t]
        selected = gradient.numel() if where is None else where.numel()
        j, at = _kept(where, selected, gradient.device, seed, ordinal[t], int(step), threshold)
        kept = gradient.flatten()[at]
        code = scale_code[t] if scale_code else None
        if code is not None:
            assert table is not None
            kept = (kept.float() * table[code[j].long()]).to(gradient.dtype)
        gradient.zero_()
        gradient.view(-1)[at] = kept


def pack_bits(flags: Tensor) -> Tensor:
    """Eight bools a byte, least significant first: bool ``[n]`` -> uint8 ``[(n + 7) // 8]``."""
    padded = torch.nn.functional.pad(flags.flatten().to(torch.uint8), (0, -flags.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8, device=flags.device)).sum(dim=1, dtype=torch.uint8)


def unpack_bits(bits: Tensor, n: int) -> Tensor:
    """The inverse of `pack_bits`: uint8 ``[(n + 7) // 8]`` -> bool ``[n]``."""
    flags = bits.view(-1, 1) >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    return flags.flatten()[:n].bool()
