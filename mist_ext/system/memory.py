"""How much memory may still be taken, asked before a large allocation, so that a run is not killed in its midst."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_CONTROL_GROUPS = (  # of version 2 and 1: limit, use, and what memory.stat calls the file cache
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


class NotEnoughMemory(MemoryError):
    """What is about to be allocated is more than there is."""


def available(device: torch.device) -> int:
    """Return the bytes that may still be allocated on a device.

    On CUDA, what is free and what torch has cached. On the CPU, what the kernel counts as available, or what is left of
    a container's limit if that is less; the machine's whole memory if the kernel does not say what is available.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE) if _MEMINFO.exists() else None
    machine = int(found[1]) * 1024 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _left_in_container()
    return machine if limit is None else min(machine, limit)


def require(needed: float, device: torch.device, purpose: str, advice: str) -> None:
    """Raise `NotEnoughMemory` if more is needed than there is.

    Parameters
    ----------
    needed : float
        Bytes.
    device : torch.device
    purpose : str
        What needs it, as the message's subject.
    advice : str
        What to do.
    """
    there = available(device)
    if needed > there:
        raise NotEnoughMemory(
            f"{purpose} needs {needed / 1e9:.1f} GB of memory, but {there / 1e9:.1f} GB are available on {device}; "
            f"{advice}"
        )


def _left_in_container() -> int | None:
    """Return the bytes that the container still allows; its file cache counts, since it is freed on demand."""
    for limit, used, cache in _CONTROL_GROUPS:
        folder = _CGROUP / Path(limit).parent
        files = [_CGROUP / limit, _CGROUP / used, folder / "memory.stat"]
        if not all(file.exists() for file in files) or files[0].read_text().strip() == "max":
            continue
        cached = re.search(rf"^{cache} (\d+)", files[2].read_text(), re.MULTILINE)
        return int(files[0].read_text()) - int(files[1].read_text()) + (int(cached[1]) if cached else 0)
    return None
