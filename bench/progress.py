"""Progress as plain lines, and tables as Markdown: benchmarks run where there is torch and timm alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta


class Progress:
    """Says on the error stream what is done and how long the rest will take, so that the output is the tables alone.

    Parameters
    ----------
    total : int
        Units of the whole run (`advance`).
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.what = ""

    def begin(self, what: str) -> None:
        """Name the unit of the run that begins."""
        self.what = what
        say(f"{what} ...")

    def advance(self, finding: str) -> None:
        """A unit of the run is done: say what came out of it."""
        self.done += 1
        elapsed = time.monotonic() - self.started
        left = elapsed / self.done * (self.total - self.done)
        say(f"{self.what}: {finding}  [{self.done}/{self.total}, {_clock(elapsed)} gone, {_clock(left)} left]")


def say(line: str) -> None:
    """Print a line on the error stream at once."""
    print(line, file=sys.stderr, flush=True)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A Markdown table that is aligned as plain text too; columns are numbers, but for the first and the `words`."""
    widths = [max(3, *map(len, column)) for column in zip(headings, *rows, strict=True)]
    left = [place == 0 or heading in words for place, heading in enumerate(headings)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if to_left else "-" * (w - 1) + ":" for w, to_left in zip(widths, left, strict=True)]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
