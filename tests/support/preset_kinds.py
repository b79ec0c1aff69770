"""The presets of data on the disk, by what they have in common."""

from __future__ import annotations

from mist_ext.config import presets

EMBEDDED = ("glyphs", "renditions")


def kinds() -> dict[str, list[str]]:
    """Return the names of each kind; a kind is called as its presets are, with DATA for the data set."""
    found: dict[str, list[str]] = {}
    for name, settings in presets.PRESETS.items():
        if settings["data"] not in EMBEDDED:
            found.setdefault(name.replace(settings["data"], "DATA"), []).append(name)
    return found
