"""Which implementation of an op a call takes: the compiled one of its device, or plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mist_ext.kernels import compiled, reference


def implementation(op: str, **lists: Sequence) -> Any:
    """Return the op for the device of the first list; RuntimeError if one of the lists alone is empty."""
    (name, first), *others = lists.items()
    for other, values in others:
        if not (first and values):
            raise RuntimeError(f"{op}: {other} has {len(values)} tensors, but {name} has {len(first)}")
    return getattr(torch.ops.mist_ext if compiled.available(first[0].device) else reference, op)
