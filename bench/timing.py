"""Times calls in turns, each from cold caches.

Machines are noisy, and their noise lasts: a contestant that is timed in one go may meet a slow minute. So every round
calls each once, and medians are compared. Before each call a large buffer is read, so that no cache holds the tensors:
for models that are larger than the caches that is so anyway, small ones would be timed from cache.

On a GPU the time is the device's own, between two events, while the host runs ahead as it does in training: the
reading before the first event lasts some milliseconds, in which a call is handed over. A call that takes the host
longer than that, such as a chain of thousands of ops, is timed at the host's pace, which is its own. What the host does
for a step is measured by overhead.py.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

import torch

EVICTING = 2**28  # bytes read, several times the largest caches of a core complex or a GPU
AHEAD = 40  # such reads before a call on a GPU, some 0.06 ms each
ENOUGH = 3  # rounds at least
PATIENCE = 6.0  # seconds: who has taken longer is not called again


@contextmanager
def real_time() -> Iterator[None]:
    """Give this process's threads real-time priority, which needs root, on Linux; then let the others work a while."""

    def schedule(policy: int, priority: int) -> None:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(thread), policy, os.sched_param(priority))

    schedule(os.SCHED_FIFO, 1)
    try:
        yield
    finally:
        schedule(os.SCHED_OTHER, 0)
        time.sleep(0.02)


@dataclass
class Stopwatch:
    """Times single calls on a device."""

    device: torch.device
    alone: bool = False  # keep other programs off the cores meanwhile
    buffer: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.buffer = torch.zeros(EVICTING // 4, device=self.device)

    def evict(self) -> None:
        """Fill the caches with something else; read, not written, so that nothing is left to be written back."""
        self.buffer.sum()
        self.wait()

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """How long one call takes, from cold caches."""
        if self.device.type == "cuda":
            return self._on_device(call)
        with real_time() if self.alone else nullcontext():
            self.evict()
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

    def _on_device(self, call: Callable[[], object]) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        for _ in range(AHEAD):
            self.buffer.sum()
        began.record()
        call()
        ended.record()
        self.wait()
        return began.elapsed_time(ended) / 1e3

    def in_turns(self, calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Median milliseconds of each call, which has been called before.

        Slow ones are left out once they took `PATIENCE` seconds and have been timed `ENOUGH` times.
        """
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                if len(taken[name]) < ENOUGH or sum(taken[name]) < PATIENCE:
                    taken[name].append(self.seconds(call))
        return {name: 1e3 * statistics.median(times) for name, times in taken.items()}
