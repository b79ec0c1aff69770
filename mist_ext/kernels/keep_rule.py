"""The keep rule on the host: its threshold, and which entries a step keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mist_ext.kernels import compiled, reference
from mist_ext.kernels.arguments import check_keep_mask


def keep_threshold(keep: float) -> int:
    """Return the keep rule's integer T = floor(keep * 65536 + 0.5).

    Raises
    ------
    ValueError
        If ``keep`` is outside [0, 1], or so small (below 2^-17) that nothing would ever be kept.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is {keep}, expected a probability from 0 to 1")
    if 0 < keep < 2**-17:
        raise ValueError(
            f"keep is {keep}, which rounds to keeping nothing; expected 0 or at least 2^-17 = {2**-17:.2e}"
        )
    return math.floor(keep * 65536 + 0.5)


def keep_mask(seed: int, ordinal: int, step: int, n: int, threshold: int, first: int = 0) -> Tensor:
    """Return which of a tensor's ``n`` selected entries from ``first`` on are kept: bool, ``[n]``, on the CPU.

    Parameters
    ----------
    seed, ordinal, step, first : int
        As in `ops.drop_apply_sgd_`, for one tensor.
    n : int
        The number of selected entries, 0 to 2^31.
    threshold : int
        `keep_threshold` of the keep probability.

    Raises
    ------
    RuntimeError
        For an argument out of range: a threshold above 65536, say.
    """
    check_keep_mask(seed, ordinal, step, n, threshold, first)
    if compiled.C is None:
        return reference.keep_mask(seed, ordinal, step, n, threshold, first)
    packed = bytearray(compiled.C.keep_mask(seed, ordinal, step, n, threshold, first))
    return torch.frombuffer(packed, dtype=torch.bool) if n else torch.empty(0, dtype=torch.bool)
