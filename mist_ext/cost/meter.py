"""Count and time the steps of work that passes its batches through a progress display, which tuners and methods do."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mist_ext.system import peak_memory

UNTIMED = 2  # the first step warms up, and tuners measure in it what it changes; in the second FLOPs are counted


@dataclass
class Steps:
    """What the steps of a phase take.

    Attributes
    ----------
    forward_flops, backward_flops : int
        Of one step: before its ``backward`` is called, and from then on.
    times : list of float
        Seconds of each timed step.
    peak_memory_bytes : int or None
        The most that was in use during a timed step, less what was before the `Meter`; None where that is not known.
    """

    forward_flops: int = 0
    backward_flops: int = 0
    times: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """The median of the timed steps."""
        return statistics.median(self.times)


class Meter:
    """Measures steps, by phase.

    A step lasts from when a batch is asked for to when the next one is.

    Parameters
    ----------
    device : torch.device
    progress : callable
        Shows how far an iterable is, as `Callbacks.progress` does.

    Attributes
    ----------
    phases : dict of str to Steps
        By the first word of what the display calls them.
    """

    def __init__(self, device: torch.device, progress: Callable[[Iterable[Any], str, int], Iterable[Any]]) -> None:
        self.device, self.progress = device, progress
        self.phases: dict[str, Steps] = {}
        self._running: Generator[Any, None, None] | None = None
        gc.collect()
        self._before = self._reset()

    def track(self, iterable: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        """Pass batches through, and measure what is done with each."""
        self._running = self._measured(iterable, description.split()[0], total)
        return self._running

    def repeat(self, action: Callable[[], Any], phase: str, times: int) -> None:
        """Measure an action as a step, so many times after the untimed ones."""
        total = UNTIMED + times
        for _ in self.track(range(total), phase, total):
            action()

    def close(self) -> None:
        """End the step at hand, which an error may have left open."""
        if self._running is not None:
            self._running.close()

    def _measured(self, iterable: Iterable[Any], phase: str, total: int) -> Generator[Any, None, None]:
        steps = self.phases.setdefault(phase, Steps())
        items = iter(iterable)
        for number in self.progress(range(total), phase, total):
            if number == UNTIMED - 1:
                with self._counted(steps):
                    yield next(items)
            elif number < UNTIMED:
                yield next(items)
            else:
                if number == UNTIMED:
                    self._reset()
                began = self._now()
                yield next(items)
                steps.times.append(self._now() - began)
                if self._before is not None:
                    steps.peak_memory_bytes = peak_memory.since_reset(self.device) - self._before

    @contextmanager
    def _counted(self, steps: Steps) -> Iterator[None]:
        """Count the FLOPs of a step, with attention as plain products: torch has no count of some fused kernels."""
        counter = FlopCounterMode(display=False)
        with counter, _UntilBackward(counter) as until, sdpa_kernel(SDPBackend.MATH):
            yield
        total = counter.get_total_flops()
        steps.forward_flops = total if until.flops is None else until.flops
        steps.backward_flops = total - steps.forward_flops

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _reset(self) -> int | None:
        """Begin a new peak from what is in use now, and return that, if it can be known."""
        if self.device.type != "cuda" and not peak_memory.resettable():
            return None
        peak_memory.give_back()
        peak_memory.reset(self.device)
        return peak_memory.since_reset(self.device)


class _UntilBackward(TorchFunctionMode):
    """Notes what a counter has counted when ``backward`` is called; None if it never is."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.flops: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.backward:
            self.flops = self.counter.get_total_flops()
        return func(*args, **(kwargs or {}))
