"""Ascending positions as the gaps between them, in plain PyTorch: about one byte a position.

A position's gap counts the positions between it and the one before (of the first: before it). The code has one byte for
each position, its gap, or 255 where the gap is 255 or more; behind all of them stand those gaps, in order, in four
bytes each, least significant first.
"""

from __future__ import annotations

import torch
from torch import Tensor

ESCAPE = 255


def encode(index: Tensor) -> Tensor:
    """Return the code of ascending positions: int32 ``[k]`` -> uint8 ``[k + 4 escapes]``, on the CPU."""
    gaps = torch.diff(index.cpu().long(), prepend=torch.tensor([-1])) - 1
    wide = gaps[gaps >= ESCAPE]
    shifts = torch.tensor([0, 8, 16, 24])
    return torch.cat([gaps.clamp(max=ESCAPE), (wide.view(-1, 1) >> shifts & 255).flatten()]).to(torch.uint8)


def decode(code: Tensor, count: int, numel: int) -> Tensor:
    """Return the positions of a code: uint8 -> int32 ``[count]``.

    Raises
    ------
    ValueError
        Unless it is the code of ``count`` ascending positions below ``numel``.
    """
    if not 0 <= count <= min(numel, code.numel()):
        raise ValueError(f"has {code.numel()} bytes, too few for {count} of {numel} positions")
    gaps = code[:count].long()
    escaped = (gaps == ESCAPE).nonzero().flatten()
    if code.numel() != count + 4 * len(escaped):
        raise ValueError(f"has {code.numel()} bytes, expected {count + 4 * len(escaped)} for {count} positions")
    wide = (code[count:].long().view(-1, 4) << torch.tensor([0, 8, 16, 24])).sum(dim=1)
    if bool((wide < ESCAPE).any()):
        raise ValueError(f"escapes a gap of {int(wide.min())}, which has room in a byte")
    gaps[escaped] = wide
    positions = (gaps + 1).cumsum(0) - 1
    if count and int(positions[-1]) >= numel:
        raise ValueError(f"ends at position {int(positions[-1])}, expected positions below {numel}")
    return positions.int()
