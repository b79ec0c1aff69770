"""The most memory that was in use since a moment.

On a GPU it is what torch had allocated there. Else it is what was resident in the process: on Linux ``VmHWM``, which
the kernel lets a process set back to what is resident now. It sees everything, also what C++ takes without torch, and
what the C library keeps of freed blocks, until `give_back`. Where that cannot be reset, as on other systems, it is the
largest since the process began, which only grows.
"""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET = "5"  # proc(5): "Writing 5 resets the peak resident set size"


def reset(device: torch.device | None) -> None:
    """Begin a new peak from the memory in use now on a device; None is the CPU."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif resettable():
        _CLEAR.write_text(_RESET)


def since_reset(device: torch.device | None) -> int:
    """Return the most bytes in use on a device since `reset`, or since the process began if it cannot be reset."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if resettable():
        return _high_water() or 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back() -> None:
    """Return freed memory from the C library to the system, since a later peak would hide in it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@cache
def resettable() -> bool:
    """Return whether the system reports the process's peak memory and lets it be reset."""
    try:
        _CLEAR.write_text(_RESET)
        return _high_water() is not None
    except OSError:
        return False


def _high_water() -> int | None:
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
