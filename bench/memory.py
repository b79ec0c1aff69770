"""How much memory there is, and how much of it a call takes.

On Linux a call's peak is the process' high-water mark of resident memory (``VmHWM``, which the kernel lets a process
reset), over what was resident before. That sees everything: results, torch's temporaries, and what C++ takes without
torch. The C library first gives back what earlier calls have freed, which would hide it. The kernel counts pages per
core and sums them up lazily, so a peak is good to about half a megabyte. On a GPU it is the peak of torch's allocator.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR, MEMINFO = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/meminfo")
RESET_PEAK = "5"  # proc(5): "Writing 5 resets the peak resident set size"
SPARE = 2**30  # bytes left to the rest of the machine


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The memory that a call takes at its peak beyond what was there, its result included; None where not known."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR.exists():
        call()
        return None
    give_back()
    CLEAR.write_text(RESET_PEAK)
    before = _kilobytes(STATUS, "VmRSS")
    call()
    return max(0, _kilobytes(STATUS, "VmHWM") - before) * 1024


def available(device: torch.device) -> float:
    """Bytes that may still be taken; infinite where not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] - SPARE
    return _kilobytes(MEMINFO, "MemAvailable") * 1024 - SPARE if MEMINFO.exists() else float("inf")


def give_back() -> None:
    """Let the C library return freed memory to the system, and torch its GPU cache."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kilobytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    assert found, f"{file} has no {name}"
    return int(found[1])
