"""One process at a time in a folder, whichever way it was started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, which has no such locks
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"  # of its own: a file that is replaced would be locked no more


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Keep other processes from working in a folder; the end of this one, even by a kill, gives it free.

    Parameters
    ----------
    folder : Path
        Of a run or a sweep. The lock's file stays in it: to remove it would let two in.
    wait : bool
        Whether to wait for another process instead of raising.

    Raises
    ------
    ValueError
        If another process works there.
    PermissionError
        If the folder cannot be written.
    """
    # Nothing in the lock's place can keep this from returning, as opening a fifo for writing would.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(folder / FILE, flags, 0o666)
    except PermissionError as error:
        raise PermissionError(f"folder {folder} cannot be written: no permission for {folder / FILE}") from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise ValueError(f"another process works in {folder}; wait for it or stop it") from error
        yield
    finally:
        os.close(descriptor)
