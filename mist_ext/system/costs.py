"""What the phases of a task take: seconds and peak memory, measured together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from mist_ext.system import peak_memory
from mist_ext.system.suggest import unknown

if TYPE_CHECKING:
    import torch

TUNING_PHASES = ("score", "select", "tune")
PHASES = (*TUNING_PHASES, "learn", "evaluate")
# A record's further entry beside the phases: the part of the last two that methods without training of their own share.
SHARED_EXTRACTION = "shared_extraction"


@dataclass
class Costs:
    """Seconds and peak memory by phase.

    A phase may be measured in several parts: their seconds are added up, and the largest of their peaks is kept. Phases
    nest: while an inner one is measured the outer one is not. Memory is that of the whole process or GPU, so it holds
    what was there before the phase, and only one `Costs` measures at a time.

    Parameters
    ----------
    device : torch.device, optional
        Whose memory is measured, and what a phase's end waits for; the CPU by default.

    Attributes
    ----------
    seconds : dict
        0 for a phase that there was not.
    peak_memory_bytes : dict
        As `mist_ext.system.peak_memory` has it; None for a phase that there was not.
    broken : str or None
        The innermost phase that an error ended.
    """

    device: InitVar[torch.device | None] = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    peak_memory_bytes: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(PHASES))

    def __post_init__(self, device: torch.device | None) -> None:
        self._device = device
        self._phase: str | None = None
        self.broken: str | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done within it under a phase; ValueError unless it is one of `PHASES`."""
        if name not in PHASES:
            raise unknown("phase", name, PHASES)
        outer = self._switch(name, give_back=True)
        try:
            yield
            self._wait()
        except BaseException:
            self.broken = self.broken or self._phase
            raise
        finally:
            self._switch(outer, give_back=True)

    def apart(self, call: Callable[[], None]) -> None:
        """Call what counts under no phase, such as saving the state, in the midst of one."""
        outer = self._switch(None)
        try:
            call()
        finally:
            self._switch(outer)

    def __add__(self, other: Costs) -> Costs:
        """Add two measurements of one device: seconds are summed, and the larger peak of each phase is kept."""
        seconds = {phase: self.seconds[phase] + other.seconds[phase] for phase in PHASES}
        peaks = {phase: _larger(self.peak_memory_bytes[phase], other.peak_memory_bytes[phase]) for phase in PHASES}
        return Costs(self._device, seconds, peaks)

    def _switch(self, phase: str | None, give_back: bool = False) -> str | None:
        """Measure another phase from now on, or none; returns the one so far."""
        before = self._phase
        if before is not None:
            self.seconds[before] += time.perf_counter() - self._since
            peak = peak_memory.since_reset(self._device)
            self.peak_memory_bytes[before] = _larger(self.peak_memory_bytes[before], peak)
        if phase is not None:
            if give_back:  # what the phase before has freed is none of this one's
                peak_memory.give_back()
            peak_memory.reset(self._device)
        self._phase, self._since = phase, time.perf_counter()
        return before

    def _wait(self) -> None:
        """Wait for the GPU, whose work would otherwise count towards the next phase."""
        if self._device is not None and self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


def _larger(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)
