"""The error for a name that is not known, with the names that come nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mist_ext.system.names import quoted

_LIKE = 0.5  # how alike a suggestion must be, of 1
_AS_GOOD = 0.1  # how much less alike than the best another one may be


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Make the error for an unknown name; the caller raises it.

    Parameters
    ----------
    kind : str
        What the name should have named, such as ``"data set"``.
    name : object
        What was given, a name as a rule.
    known : iterable of str
        All names that exist.

    Returns
    -------
    ValueError
        Names ``kind`` and ``name``, and suggests up to three near names, or lists all where none is near.
    """
    names = sorted(known)
    near = _near(str(name), names)
    if near:
        return ValueError(f"unknown {kind} {quoted(name)}; did you mean {_either(near)}?")
    listed = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return ValueError(f"unknown {kind} {quoted(name)}; {f'choose one of: {listed}' if listed else 'there is none'}")


def _near(name: str, names: list[str]) -> list[str]:
    """Return the names that begin with this one, the shortest first, or else the most similar names."""
    wanted = _letters(name[:100])
    letters = {each: _letters(each) for each in names}
    if len(wanted) > 1 and (begun := [each for each in names if letters[each].startswith(wanted)]):
        return sorted(begun, key=len)[:3]
    ratios = {each: difflib.SequenceMatcher(None, letters[each], wanted).ratio() for each in names}
    best = max(ratios.values(), default=0.0)
    near = [each for each in names if ratios[each] >= max(_LIKE, best - _AS_GOOD)]
    return sorted(near, key=lambda each: -ratios[each])[:3]


def _letters(name: str) -> str:
    """Return what is compared of a name: without the leading dashes that all flags share."""
    return name.lower().lstrip("-").replace("_", "-")


def _either(names: list[str]) -> str:
    quoted_names = [repr(name) for name in names]
    return quoted_names[0] if len(names) == 1 else f"{', '.join(quoted_names[:-1])} or {quoted_names[-1]}"
