"""Times the steps of tuners and methods, from the callbacks by which they show how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from mist_ext.system.callbacks import Callbacks


@dataclass(frozen=True)
class Pace:
    """How fast epochs of one phase are.

    Attributes
    ----------
    epochs : int
        That were timed.
    first, step : float
        Seconds of an epoch's first step, in which a tuner also measures what it changes, and of any other.
    steps : int
        That ``step`` is taken from: other ones, or first ones where epochs had no others.
    """

    epochs: int
    first: float
    step: float
    steps: int

    def seconds(self, steps: float) -> float:
        """Return the seconds of an epoch of so many steps, of which the last may be a part of one."""
        return self.first * min(1.0, steps) + self.step * max(0.0, steps - 1)


class Stopwatch:
    """Notes what each step takes.

    Parameters
    ----------
    device : torch.device
        What a step's end waits for.
    show : callable
        Passes an iterable through and shows how far it is, as `Callbacks.progress`.
    """

    def __init__(self, device: torch.device, show: Callable[[Iterable[Any], str, int], Iterable[Any]]) -> None:
        self.device, self._show = device, show
        self._epochs: dict[str, list[list[float]]] = {}

    @property
    def callbacks(self) -> Callbacks:
        """What a tuner or a method is given."""
        return Callbacks(progress=self._progress)

    def time(self, work: Callable[[], Any]) -> tuple[dict[str, Pace], float]:
        """Do some work; return the pace of each of its phases, and the seconds that were spent in none."""
        self._epochs = {}
        since = self._now()
        work()
        total = self._now() - since
        inside = sum(sum(steps) for epochs in self._epochs.values() for steps in epochs)
        paces = {phase: _pace(epochs) for phase, epochs in self._epochs.items()}
        return paces, max(0.0, total - inside)

    def _progress(self, iterable: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        steps: list[float] = []
        self._epochs.setdefault(description.partition(" ")[0], []).append(steps)
        since = self._now()
        for item in self._show(iterable, description, total):
            yield item
            now = self._now()
            steps.append(now - since)
            since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _pace(epochs: list[list[float]]) -> Pace:
    firsts = [steps[0] for steps in epochs if steps]
    others = [step for steps in epochs for step in steps[1:]]
    timed = others or firsts
    return Pace(len(epochs), median(firsts) if firsts else 0.0, median(timed) if timed else 0.0, len(timed))
