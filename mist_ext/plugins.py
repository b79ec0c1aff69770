"""Tuners, methods and data sources of other packages, found by the entry points that they declare.

A name that this package has itself keeps its own meaning.
"""

from __future__ import annotations

from importlib.metadata import entry_points


def plugins(kind: str) -> dict[str, str]:
    """What installed packages declare under ``mist_ext.<kind>``, as ``module:attribute`` by name; nothing is imported.

    Parameters
    ----------
    kind : str
        ``tuners``, ``methods`` or ``data``.
    """
    return {entry.name: entry.value for entry in entry_points(group=f"mist_ext.{kind}")}
