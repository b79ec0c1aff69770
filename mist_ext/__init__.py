"""Mutual Information-guided Sparse Tuning (arXiv 2505.19943): tune half a percent of a transformer per step.

Importing this package imports nothing heavy: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mist_ext.config import Config as Config
    from mist_ext.optim import InBackward as InBackward
    from mist_ext.optim import MaskedGradient as MaskedGradient
    from mist_ext.optim import SampledGradients as SampledGradients
    from mist_ext.optim import SparseAdamW as SparseAdamW
    from mist_ext.optim import SparseExchange as SparseExchange
    from mist_ext.optim import SparseSGD as SparseSGD
    from mist_ext.runs.benchmark import resume as resume
    from mist_ext.runs.benchmark import run as run
    from mist_ext.runs.classifiers import load as load
    from mist_ext.selection import Selection as Selection
    from mist_ext.sensitivity import Sensitivity as Sensitivity
    from mist_ext.tuners.mist import MIST as MIST
    from mist_ext.tuners.objective import MutualInformation as MutualInformation
    from mist_ext.tuners.views import TwoViews as TwoViews

_HOME = {
    "Config": "config",
    "InBackward": "optim",
    "MIST": "tuners.mist",
    "MaskedGradient": "optim",
    "MutualInformation": "tuners.objective",
    "SampledGradients": "optim",
    "Selection": "selection",
    "Sensitivity": "sensitivity",
    "SparseAdamW": "optim",
    "SparseExchange": "optim",
    "SparseSGD": "optim",
    "TwoViews": "tuners.views",
    "load": "runs.classifiers",
    "resume": "runs.benchmark",
    "run": "runs.benchmark",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mist_ext' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mist_ext.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def sources_digest(csrc: Path) -> str:
    """Return a digest of the C++ and CUDA sources in a folder.

    The build stores it, so that a checkout notices when the kernels it runs were built from other sources.
    """
    import hashlib

    digest = hashlib.sha256()
    for path in sorted(csrc.rglob("*.*")):
        digest.update(path.relative_to(csrc).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
