"""How much memory there is, and how much of it a call takes.

A call's peak is that of `mist_ext.system.peak_memory`, over what was there before: results, torch's temporaries, and
what C++ takes without torch. The C library first gives back what earlier calls have freed, which would hide it. The
kernel counts pages per core and sums them up lazily, so a peak is good to about half a megabyte.
"""

from __future__ import annotations

import gc
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from mist_ext.system import peak_memory

MEMINFO = Path("/proc/meminfo")
SPARE = 2**30  # bytes left to the rest of the machine


def peak_extra_bytes(call: Callable[[], object], device: torch.device, calls: int = 1) -> int | None:
    """The memory that a call takes at its peak beyond what was there, its result included; None where not known.

    Of several calls it is the median.
    """
    peaks = [_peak_extra_bytes(call, device) for _ in range(calls)]
    return None if None in peaks else round(statistics.median(peaks))


def peak_tensor_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The same of torch's tensors alone, as torch's profiler counts them."""
    if device.type == "cuda":
        return peak_extra_bytes(call, device)
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    now = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif not peak_memory.resettable():
        call()
        return None
    else:
        give_back()
    peak_memory.reset(device)
    before = peak_memory.since_reset(device)
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(0, peak_memory.since_reset(device) - before)


def available(device: torch.device) -> float:
    """Bytes that may still be taken; infinite where not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] - SPARE
    return _kilobytes(MEMINFO, "MemAvailable") * 1024 - SPARE if MEMINFO.exists() else float("inf")


def give_back() -> None:
    """Let the C library return freed memory to the system, and torch its GPU cache."""
    gc.collect()
    peak_memory.give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kilobytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    assert found, f"{file} has no {name}"
    return int(found[1])
