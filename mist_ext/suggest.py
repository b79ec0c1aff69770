"""The error for a name that is not known, with the names that come nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown name; the caller raises it.

    Parameters
    ----------
    kind : str
        What the name should have named, such as ``"data set"``.
    name : str
        The name given.
    known : iterable of str
        All names that exist.

    Returns
    -------
    ValueError
        Names ``kind`` and ``name``, and suggests up to three near names, or lists all where none is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if near:
        return ValueError(f"unknown {kind} {name!r}; did you mean {_either(near)}?")
    listed = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return ValueError(f"unknown {kind} {name!r}; choose one of: {listed}")


def _either(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
