"""How busy other programs keep the machine meanwhile.

Threads that share a parallel loop wait for the slowest of them. Where another program holds a core, each loop waits for
the kernel to take it away again, some 4 ms, however short the loop is: PyTorch's loops over 150 tensors then take
seconds, and ratios mean nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from progress import say

STAT = Path("/proc/stat")
TOO_BUSY = 0.1  # cores


class Others:
    """Counts the processor time that this process did not use.

    >>> with Others() as others:
    ...     work()
    >>> others.cores  # on average, None where not known
    """

    cores: float | None = None

    def __enter__(self) -> Others:
        self.start = _now()
        return self

    def __exit__(self, *_: object) -> None:
        elapsed, own, busy = (now - was for now, was in zip(_now(), self.start, strict=True))
        if STAT.exists():
            self.cores = round(max(0.0, busy - own) / elapsed, 2)


def warn(cores: float | None) -> None:
    """Say on the error stream that others kept the machine busy, if they did."""
    if (cores or 0) > TOO_BUSY:
        say(f"meanwhile other programs used {cores:.1f} cores: do not trust these ratios")


def _now() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), _busy()


def _busy() -> float:
    """Seconds that all cores have worked, or would have if another guest had not taken them."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, STAT.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
