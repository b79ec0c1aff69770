"""Running out of memory, disk, file handles or processes: a sentence that says where, and what to make smaller."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from mist_ext.system.memory import NotEnoughMemory

Kind = Literal["memory", "disk", "size", "files", "worker", "processes"]

NUMBERS: dict[int | None, Kind] = {
    errno.ENOMEM: "memory",
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
    errno.EFBIG: "size",
    errno.EMFILE: "files",
    errno.ENFILE: "files",
    errno.EAGAIN: "processes",
}
# What torch says, and what workers hand on, in small letters; the first that fits counts.
SIGNS: tuple[tuple[str, Kind], ...] = (
    ("too many open files", "files"),
    ("items of ancdata", "files"),  # file handles that a worker sent and that could not be opened
    ("killed by signal: killed", "worker"),
    ("killed by signal: bus error", "worker"),
    ("exited unexpectedly", "worker"),
    ("can't start new thread", "processes"),
    ("allocate memory", "memory"),
    ("not enough memory", "memory"),
    ("out of memory", "memory"),
    ("bad_alloc", "memory"),
    ("alloc_failed", "memory"),
    ("no space left", "disk"),
)
WORDS: dict[Kind, str] = {
    "memory": "memory ran out",
    "disk": "the disk is full",
    "size": "no file may be larger",
    "files": "too many files are open",
    "worker": "a process that decodes images was killed, as happens where memory runs out",
    "processes": "no process or thread more can be started",
}
ADVICE: dict[Kind, str] = {
    "disk": "make room on the disk",
    "size": "raise the limit (ulimit -f), or write to another disk",
    "files": "raise the limit (ulimit -n) or lower --workers",
    "worker": "lower --workers or --image-memory",
    "processes": "raise the limit (ulimit -u) or lower --workers",
}
# What to make smaller where memory ran out, by the first word of the phase.
SMALLER = {
    "score": "lower --batch-size or give --checkpointing",
    "select": "take a smaller backbone",
    "tune": "lower --batch-size or give --checkpointing",
    "train": "lower the method's batch size (--method-options batch_size=...)",
    "learn": "make the method smaller (--method-options width=... of ranpac)",
    "evaluate": "make the method smaller (--method-options width=... of ranpac)",
}
PHASES = ("check", "score", "select", "tune", "extract")  # which a progress display names
OTHERWISE = "lower --image-memory or --workers, or take a smaller backbone"


class Shortage(OSError):
    """What a machine gives ran out, other than memory; the message says where, and what to make smaller."""


def kind_of(error: BaseException) -> Kind | None:
    """Return which resource an error says ran out, or None."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno is not None:
        return NUMBERS.get(error.errno)
    message = str(error).lower() if isinstance(error, OSError | RuntimeError) else ""
    return next((kind for sign, kind in SIGNS if sign in message), None)


def told(error: BaseException, phase: str = "", after: str = "") -> NotEnoughMemory | Shortage | None:
    """Return an error whose message says what ran out and what to do; None if nothing ran out.

    Parameters
    ----------
    error : BaseException
    phase : str
        What was being done; its first word chooses the advice.
    after : str
        What can be done afterwards.
    """
    kind = kind_of(error)
    if kind is None:
        return None
    lines = str(error).strip().splitlines()
    words = f" ({lines[0]})" if lines else ""
    first = phase.split(" ")[0].rstrip(",")
    advice = SMALLER.get(first, OTHERWISE) if kind == "memory" else ADVICE[kind]
    during = f" in {phase}" if phase else ""
    message = f"{WORDS[kind]}{during}{words}; {advice}{after}"
    return NotEnoughMemory(message) if kind in ("memory", "worker") else Shortage(message)


@contextmanager
def explained(phase: str | Callable[[], str], after: str = "") -> Iterator[None]:
    """Keep turning errors about what ran out into those of `told` while the block runs; all others pass unchanged."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if isinstance(error, NotEnoughMemory | Shortage):
            raise
        shortage = told(error, phase if isinstance(phase, str) else phase(), after)
        if shortage is None:
            raise
        raise shortage from error
