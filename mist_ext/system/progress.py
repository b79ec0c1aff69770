"""Progress on a terminal as bars with rate and time left, elsewhere as plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from mist_ext.system.names import printable, say

T = TypeVar("T")
PLAIN_EVERY = 15.0  # seconds between two plain lines of the same phase


class RateColumn(ProgressColumn):
    """Batches or tasks a second, on average so far."""

    def render(self, task: Task) -> Text:
        """Return the rate, or an empty text before it is known."""
        now = task.completed - task.fields["before"]
        if not now or not task.elapsed:
            return Text("")
        rate = now / task.elapsed
        return Text(f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each", style="dim")


class TimeLeftColumn(ProgressColumn):
    """Time left at the average rate so far: rich gives no estimate if one unit takes longer than half a minute."""

    def render(self, task: Task) -> Text:
        """Return the time left in hours, minutes and seconds."""
        now = task.completed - task.fields["before"]
        if not now or not task.elapsed or task.total is None:
            return Text("-:--:-- left", style="cyan")
        left = task.elapsed / now * (task.total - task.completed)
        return Text(f"{_clock(left)} left", style="cyan")


class Progress:
    """One line for the whole run and one for the phase at hand.

    Parameters
    ----------
    console : Console
    total : int
        Units of the whole run (`advance`).
    done : int
        Units that were done before an interruption.
    phases : bool
        Whether units have phases that are shown (`track`).
    """

    def __init__(self, console: Console, total: int, done: int = 0, phases: bool = True) -> None:
        self.console = console
        self.total = total
        self.done = self._before = done
        self.started = time.monotonic()
        self.what = ""
        self.at = ""  # the phase at hand, and how far it is
        self._live = console.is_terminal
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._run = self._bars.add_task("run", total=total, completed=done, before=done)
        self._phase = self._bars.add_task("", total=None, before=0, visible=phases)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, what: str) -> None:
        """Name the unit of the run that begins."""
        self.what = what
        self._bars.update(self._run, description=printable(what))

    def advance(self, finding: str) -> None:
        """Count one more step of the run as done, and print its result."""
        self.done += 1
        self._bars.update(self._run, completed=self.done)
        elapsed = time.monotonic() - self.started
        left = elapsed / (self.done - self._before) * (self.total - self.done)
        ending = "" if self._live else f"  [{self.done}/{self.total}, {_clock(elapsed)} gone, {_clock(left)} left]"
        say(self.console, f"{self.what}: {finding}{ending}")

    def track(self, iterable: Iterable[T], phase: str, total: int) -> Iterator[T]:
        """Pass an iterable through, and show how far it is."""
        self._bars.reset(self._phase, description=printable(phase), total=total)
        started = said = time.monotonic()
        self.at = f"{phase}, 0 of {total} done"
        for number, item in enumerate(iterable, 1):
            yield item
            self.at = f"{phase}, {number} of {total} done"
            self._bars.update(self._phase, completed=number)
            now = time.monotonic()
            if not self._live and now - said >= PLAIN_EVERY:
                said = now
                rate = number / (now - started)
                left = _clock((total - number) / rate)
                line = f"{self.what}: {phase} {number}/{total}, {rate:.1f}/s, {left} left"
                say(self.console, line)
        self.at = ""


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
