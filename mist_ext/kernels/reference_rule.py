"""The keep rule in plain PyTorch: which entries of a selection a step keeps, and where they lie in a packed vector.

A part of `reference`, which says what it is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mist_ext.kernels.arguments import check_keep_mask
from mist_ext.kernels.checker import PIECE, Checker, selected_entries

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


def kept(
    size: int,
    index: Tensor | None,
    device: torch.device,
    seed: int,
    ordinal: int,
    step: int,
    threshold: int,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Return the positions of the kept entries in this part of the selection, and in its tensor of ``size`` entries."""
    mask = keep_mask(seed, ordinal, step, selected_entries(size, index), threshold, first)
    position = mask.nonzero().flatten().to(device)
    return position, position if index is None else index.flatten()[position].long()


def made_places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], threshold: int, seed: int, step: int
) -> Tensor:
    """Return what `ops.places` returns, of arguments that were checked."""
    of_piece = [torch.zeros(1, dtype=torch.int64)]
    for n, begin, number in zip(count, first or [0] * len(count), ordinal, strict=True):
        mask = keep_mask(seed, number, step, n, threshold, begin)
        piece = (begin + torch.arange(n)) // PIECE - begin // PIECE
        of_piece.append(torch.bincount(piece[mask], minlength=int(piece[-1]) + 1 if n else 0))
    return torch.cat(of_piece).cumsum(0)


def require_places(
    op: str,
    packed: Tensor,
    places: Tensor,
    sizes: Sequence[int],
    index: Sequence[Tensor | None],
    *draw: Any,
    longer: bool = False,
) -> None:
    """Raise RuntimeError unless the places are those of this draw, and the packed vector is as long as they say.

    It may be ``longer`` where an op says so.
    """
    made = made_places([selected_entries(n, where) for n, where in zip(sizes, index, strict=True)], *draw)
    checker, length, end = Checker(op), packed.numel(), int(made[-1])
    again = "make them by ops.places for the same lists and step"
    checker.require(torch.equal(places.flatten().cpu(), made), f"places do not fit what this step keeps; {again}")
    right = length >= end if longer else length == end
    checker.require(right, f"packed has {length} entries, but places end at {end}")
