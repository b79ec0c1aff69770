"""The compiled kernels, found and loaded, or the reason why they are missing.

Python started in a checkout's root finds the source folder ``mist_ext/`` before the installed package. The compiled
objects are then taken from the installed package, with a warning if they were built from other sources.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch

import mist_ext

PACKAGE = Path(__file__).parents[1]
BACKENDS = ("compiled", "reference")

forced = os.environ.get("MIST_EXT_BACKEND", "compiled")
if forced not in BACKENDS:
    raise ValueError(f"MIST_EXT_BACKEND is {forced!r}, expected one of {', '.join(BACKENDS)}; unset it for the default")


def _load(name: str) -> tuple[ModuleType | None, str]:
    """Return the compiled module, or None and the reason."""
    folders = [str(PACKAGE)] + [str(Path(entry or ".").resolve() / "mist_ext") for entry in sys.path]
    spec = importlib.machinery.PathFinder.find_spec(f"mist_ext.{name}", folders)
    if spec is None or spec.loader is None:
        return None, f"mist_ext/{name} was not built"
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return None, f"{spec.origin} does not load: {error}"
    return module, ""


def _warn_if_stale(module: ModuleType) -> None:
    csrc = PACKAGE.parent / "csrc"
    if csrc.is_dir() and module.build_info()["sources"] != mist_ext.sources_digest(csrc):
        warnings.warn(
            f"the kernels in {module.__file__} were built from other sources than {csrc}; run `pip install .` again",
            RuntimeWarning,
            stacklevel=2,
        )


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU-only build"
    built = C.build_info()["cuda"] if C else "none"
    return built.removeprefix("none: ") if built.startswith("none: ") else ""


C: ModuleType | None = None
cuda: ModuleType | None = None
C_missing = "MIST_EXT_BACKEND=reference"
cuda_missing = "MIST_EXT_BACKEND=reference"
if forced == "compiled":
    C, C_missing = _load("_C")
    if C is not None:
        _warn_if_stale(C)
        if not (cuda_missing := _why_no_cuda()):
            cuda, cuda_missing = _load("_cuda")
    else:
        cuda_missing = C_missing

_warned: set[str] = set()


def available(device: torch.device) -> bool:
    """Return whether compiled kernels serve this device; warn once a device type if they do not, with the reason."""
    if device.type == "cpu" and C is not None:
        return True
    if device.type == "cuda" and cuda is not None:
        return True
    if forced == "compiled" and device.type not in _warned:
        _warned.add(device.type)
        missing = {"cpu": C_missing, "cuda": cuda_missing}.get(device.type, f"there are none for {device.type}")
        warnings.warn(
            f"mist_ext runs its slow plain-PyTorch kernels on {device.type}: {missing}. "
            "`mist info` tells more; reinstalling with a compiler (and nvcc for CUDA) mends it",
            RuntimeWarning,
            stacklevel=3,
        )
    return False


def backend(device: torch.device) -> str:
    """Return the name of the kernels in results: ``cpu`` or ``cuda`` if compiled, else ``reference``."""
    return device.type if available(device) else "reference"
