"""Data sources by name."""

from __future__ import annotations

from collections.abc import Callable

from mist_ext.data import digits, glyphs
from mist_ext.data.source import Images, Source
from mist_ext.suggest import unknown

__all__ = ["SOURCES", "Images", "Source", "load"]

SOURCES: dict[str, Callable[[], Source]] = {"digits": digits.digits, "glyphs": glyphs.glyphs}


def load(name: str) -> Source:
    """Load a data set.

    Parameters
    ----------
    name : str
        A key of ``SOURCES``.

    Raises
    ------
    ValueError
        If there is no such data set; the message suggests the nearest names.
    """
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]()
