"""MATLAB files of any origin, read by SciPy in a process of its own, which damage can end or fill but not ours."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mist_ext.system.bounded_files import read_bytes
from mist_ext.system.names import printable

MOST_BYTES = 16 * 2**20  # of a file; Stanford Cars' largest has 0.4 MB
MOST_ENTRIES = 100_000
MOST_LETTERS = 4096  # of a name
MOST_MEMORY = 2 * 2**30  # that the process may reserve
MOST_SECONDS = 60


def read(path: Path, variable: str, fields: Sequence[str] = ()) -> list[list[int | str]]:
    """Read a list of names, or of structures.

    Parameters
    ----------
    path : Path
    variable : str
    fields : sequence of str
        Of the structures; none where the variable holds the values themselves.

    Returns
    -------
    list of list
        The fields of each entry: numbers or text.

    Raises
    ------
    OSError
        If it is no regular file, or cannot be read.
    ValueError
        If it holds no such variable, or reading takes too much.
    """
    content = read_bytes(path, MOST_BYTES)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mist_ext.data.matlab", variable, *fields],
            cwd=Path(__file__).parents[2],  # where the package lies, installed or not
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # each would reserve memory
            input=content,
            capture_output=True,
            timeout=MOST_SECONDS,
            check=True,
        )
        entries: list[list[int | str]] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        reason = f"reading it takes more than {MOST_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").split("\n")
        ended = error.returncode < 0 or len(lines) < 2  # by a signal, else the last line is the error
        reason = "it ends the process that reads it" if ended else printable(lines[-2].partition(": ")[2])
    else:
        return entries
    raise ValueError(f"{path} is no MATLAB file with the variable {variable} ({reason}); get it anew")


def _main(variable: str, *fields: str) -> None:
    """Write the entries of the file that comes in."""
    import numpy as np
    from scipy.io import loadmat

    _limit_memory()
    content = io.BytesIO(sys.stdin.buffer.read())
    values = np.atleast_1d(loadmat(content, squeeze_me=True, variable_names=[variable])[variable])
    if values.size > MOST_ENTRIES:
        raise ValueError(f"it has {values.size:,} entries, expected at most {MOST_ENTRIES:,}")
    entries = [[_plain(each[name]) for name in fields] if fields else [_plain(each)] for each in values.flat]
    json.dump(entries, sys.stdout)


def _plain(value: object) -> int | str:
    """Return a number or text as a type that JSON has."""
    import numpy as np

    if isinstance(value, str) and len(value) <= MOST_LETTERS:
        return str(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    raise TypeError(f"it holds a {type(value).__name__}, expected numbers and names")


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MOST_MEMORY if most == resource.RLIM_INFINITY else min(MOST_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


if __name__ == "__main__":
    _main(*sys.argv[1:])
