"""Files that are either the old one or the new one, never half of each."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replace a file's content in one step that survives a crash or a full disk.

    The content goes to a temporary name in the same folder, is flushed to the disk and then renamed, so a
    reader sees the old content or the new one, and an interrupted write leaves the old file as it was.

    Parameters
    ----------
    path : path-like
        The file to write; its folder must exist.
    content : bytes or str
        Text is written as UTF-8 with its line ends as they are; what has no UTF-8, as an escape.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the file cannot be written; the temporary file is gone then.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: {path.parent} is no folder; create it first")
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    # The process id keeps two processes that write the same file from sharing a temporary one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # What was written through a descriptor is not named.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a rename in a folder: on POSIX a folder's entries are data of the folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
