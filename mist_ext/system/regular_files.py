"""Files that are opened only where they are regular ones, so that no fifo or device can hang the reader."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; what would wait for a writer (a fifo, a device) is refused at once.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file; the message names it.
    """
    # Without O_NONBLOCK, opening a fifo waits for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{os.fspath(path)} is no regular file; give one, or a link to one")
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


@contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Keep a regular file open under a UTF-8 path while the block runs, for libraries that take no other."""
    name = os.fspath(path)
    with opened(path) as file:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            name = f"/dev/fd/{file.fileno()}"
        yield name
