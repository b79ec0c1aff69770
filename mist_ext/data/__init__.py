"""Data sources by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mist_ext.registry import EMBEDDED as EMBEDDED
from mist_ext.registry import FOLDER as FOLDER
from mist_ext.registry import ON_DISK as ON_DISK
from mist_ext.registry import SOURCES as SOURCES
from mist_ext.registry import check_data
from mist_ext.system.names import quoted

if TYPE_CHECKING:
    from mist_ext.data.source import Source

DEFAULT_ROOT = "data"


def check_test_fraction(fraction: float) -> None:
    """Raise ValueError unless it is a share that leaves images to train and to test."""
    if not 0 < fraction < 1:
        raise ValueError(f"test_fraction is {fraction}, expected a share between 0 and 1")


def root_folder(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder in which data sets are looked for: the one given, ``$MIST_DATA``, or ``data``."""
    return Path(given or os.environ.get("MIST_DATA") or DEFAULT_ROOT).expanduser()


def load(
    name: str, root: str | os.PathLike[str] | None = None, test_fraction: float = 0.2, called: str | None = None
) -> Source:
    """Load a data set.

    Parameters
    ----------
    name : str
        A key of ``SOURCES``, or ``folder:PATH``.
    root : path-like, optional
        As `root_folder` takes it.
    test_fraction : float
        Share of every class that is held out for testing where a folder has no split.
    called : str, optional
        The source's name where it is read from a folder, which may have had another name before.

    Raises
    ------
    ValueError
        If there is no such data set; the message suggests the nearest names. If ``test_fraction`` is out of range.
    FileNotFoundError
        If it is not below ``root``; the message lists what was looked for and where to get it.
    """
    from mist_ext.data.source import Source

    check_data(name)
    check_test_fraction(test_fraction)
    if name.startswith(FOLDER):
        from mist_ext.data.folder import folder

        return folder(Path(name.removeprefix(FOLDER)).expanduser(), test_fraction, called)
    make = SOURCES.resolve(name)
    source = make() if name in EMBEDDED else make(root_folder(root))
    if not isinstance(source, Source):
        raise ValueError(
            f"data set {name!r} ({SOURCES[name]}) is {quoted(source)}, expected a mist_ext.data.source.Source"
        )
    return source
