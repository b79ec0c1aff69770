"""A sparse optimiser out of what other libraries wrap around it."""

from __future__ import annotations

from typing import Any

from mist_ext.optim.sparse import SparseOptimizer


def unwrapped(optimizer: Any, context: str) -> SparseOptimizer:
    """Return a sparse optimiser, unwrapped from accelerate's `AcceleratedOptimizer`; TypeError for another one."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(inner, SparseOptimizer):
        raise TypeError(f"{context} takes a SparseSGD or SparseAdamW, not {type(inner).__name__}")
    return inner
