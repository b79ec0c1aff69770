"""Worker processes that decode images: how they start, and what signals do to them.

A signal of a terminal or a scheduler reaches the whole process group, but the parent needs its workers to finish the
step at hand. So a worker ignores it, and ends when its parent ends.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FORKS = sys.platform == "linux"  # forked worker processes share the cached images

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ending = mmap.mmap(-1, 1)  # shared with forked workers: whether this process ends
atexit.register(_ending.__setitem__, 0, 1)


def worker_context(workers: int) -> multiprocessing.context.BaseContext | None:
    """Return how worker processes start: forked on Linux, where they share cached images; None for torch's default."""
    return multiprocessing.get_context("fork") if workers and FORKS else None


@contextmanager
def workers_start() -> Iterator[None]:
    """Hold signals back while workers are forked, which inherit the hold.

    torch lets SIGTERM kill a worker that `end_with_the_parent` has not reached yet.
    """
    if not FORKS:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_the_parent(_worker: int) -> None:
    """Let a worker ignore Ctrl-C, and end by SIGTERM only once its parent ends.

    When the parent ends, it sends its workers SIGTERM and waits for them, also for those that an error has left behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0) if _ending[0] else None)
    if FORKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
