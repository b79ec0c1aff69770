"""A part of a sweep, for one of several machines. Nothing heavy is imported."""

from __future__ import annotations

import re
from typing import NamedTuple

from mist_ext.sweep.grid import Grid
from mist_ext.sweep.point import Point
from mist_ext.system.names import quoted


class Part(NamedTuple):
    """One of several parts, which are disjoint and together everything.

    Attributes
    ----------
    number : int
        From 1.
    of : int
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``2/8``; ValueError for anything else."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        part = cls(int(found[1]), int(found[2])) if found else None
        if part is None or not 1 <= part.number <= part.of:
            raise ValueError(
                f"part is {quoted(text)}, expected NUMBER/PARTS with a number from 1 to PARTS, such as 2/8 for the "
                "second of eight machines"
            )
        return part

    def points(self, grid: Grid) -> list[Point]:
        """Return every ``of``-th point of a grid, from the ``number``-th on.

        Points that tune are dealt out before those that do not, since they take longer: parts differ by one of each
        kind at most.
        """
        dealt = sorted(grid.points, key=lambda point: not point.tunes)
        return dealt[self.number - 1 :: self.of]
