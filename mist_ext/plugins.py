"""Tuners, methods and data sources of other packages, found by the entry points that they declare.

A name that this package has itself keeps its own meaning.
"""

from __future__ import annotations

import pkgutil
from importlib.metadata import entry_points
from typing import Any

from mist_ext.names import quoted

# What importing somebody else's module raises where it is not there, not finished, or does not suit what it finds.
_BROKEN = (
    ImportError,
    AttributeError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
    KeyError,
    RuntimeError,
    OSError,
    SystemExit,
)


def plugins(kind: str) -> dict[str, str]:
    """What installed packages declare under ``mist_ext.<kind>``, as ``module:attribute`` by name; nothing is imported.

    Parameters
    ----------
    kind : str
        ``tuners``, ``methods`` or ``data``.
    """
    return {entry.name: entry.value for entry in entry_points(group=f"mist_ext.{kind}")}


def resolve(kind: str, name: str, place: str, base: type | None = None) -> Any:
    """Import what a name stands for.

    Parameters
    ----------
    kind : str
        As `plugins` has it.
    name : str
    place : str
        ``module:attribute``.
    base : type, optional
        What it must be a class derived from; otherwise it must be callable.

    Raises
    ------
    ValueError
        If it cannot be imported, or is something else; the message names the package that declares it.
    """
    if place.startswith("mist_ext."):
        return pkgutil.resolve_name(place)
    what = f"{name!r} of {_package(kind, name, place)} ({kind}: {place})"
    try:
        found = pkgutil.resolve_name(place)
    except _BROKEN as error:
        raise ValueError(
            f"{what} cannot be imported: {type(error).__name__}: {error}; mend that package, or leave {name!r} out"
        ) from error
    expected = "a function" if base is None else f"a class derived from {base.__module__}.{base.__name__}"
    if not callable(found) or (base is not None and not (isinstance(found, type) and issubclass(found, base))):
        raise ValueError(f"{what} is {quoted(found)}, expected {expected}; mend that package, or leave it out")
    return found


def _package(kind: str, name: str, place: str) -> str:
    """The package that declares it, in words."""
    for entry in entry_points(group=f"mist_ext.{kind}"):
        if (entry.name, entry.value) == (name, place) and entry.dist is not None:
            return f"the package {entry.dist.name} {entry.dist.version}"
    return "this program"
