"""What a result depends on besides the code: the machine and the versions."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mist_ext
from mist_ext.kernels import compiled

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


def facts(device: torch.device) -> dict[str, Any]:
    """Names and values, as JSON has them; None for what is not known."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "last_level_cache": CACHE.read_text().strip() if CACHE.exists() else None,
        "huge_pages": _huge_pages(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "mist_ext": mist_ext.__version__,
        "kernels": compiled.backend(device),
        "sources": compiled.C.build_info()["sources"] if compiled.C else None,
        "instruction_set": compiled.C.instruction_set() if compiled.C else None,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _huge_pages() -> str | None:
    """The kernel's setting, and whether torch asks for huge pages."""
    if not HUGE_PAGES.exists():
        return None
    chosen = re.search(r"\[(\w+)\]", HUGE_PAGES.read_text())
    asked = os.environ.get("THP_MEM_ALLOC_ENABLE", "0") == "1"
    return f"{chosen[1] if chosen else 'unknown'}, {'asked' if asked else 'not asked'} for by torch"
