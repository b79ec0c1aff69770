"""How a command ends that cannot go on: one sentence on standard error, and the exit status 2."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from mist_ext.system.names import printable_lines


def rank() -> int:
    """Return which process of a torchrun this is; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) if of_several() else 0


def of_several() -> bool:
    """Return whether torchrun started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0").isdecimal()


def sentence(error: Exception) -> str:
    """Return what is wrong, without the number that an operating system has for it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    out_of_memory = "memory ran out; lower --batch-size, --image-memory or --workers, or take a smaller backbone"
    return str(error) or out_of_memory  # which a MemoryError leaves unsaid


def tell(message: str) -> None:
    """Print what is wrong."""
    print(f"mist: {printable_lines(message)}", file=sys.stderr)


def fail(message: str) -> NoReturn:
    """Print what is wrong, by which process where there are several, and end."""
    tell(f"rank {rank()}: {message}" if of_several() and not message.startswith("rank ") else message)
    raise SystemExit(2)


def fail_together(message: str) -> NoReturn:
    """Print what is wrong on every process of a torchrun, by the first alone, and end."""
    if not rank():
        tell(message)
    raise SystemExit(2)
