"""Eight flags in a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(flags: Tensor) -> Tensor:
    """Pack eight bools into a byte, least significant first: bool ``[n]`` -> uint8 ``[(n + 7) // 8]``."""
    padded = torch.nn.functional.pad(flags.flatten().to(torch.uint8), (0, -flags.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8, device=flags.device)).sum(dim=1, dtype=torch.uint8)


def unpack_bits(bits: Tensor, n: int) -> Tensor:
    """Invert `pack_bits`: uint8 ``[(n + 7) // 8]`` -> bool ``[n]``."""
    flags = bits.view(-1, 1) >> torch.arange(8, dtype=torch.uint8, device=bits.device) & 1
    return flags.flatten()[:n].bool()
