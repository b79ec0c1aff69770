"""Stop a run so that it can go on: signals are answered after the step at hand, and the state is saved then."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mist_ext.distributed import agreement, ranks
from mist_ext.runs import checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TWICE = 0.5  # seconds: torchrun hands Ctrl-C on to processes that a terminal has sent it already


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and its state is saved.

    Attributes
    ----------
    signal : int
        Which signal asked.
    folder : Path
        Of the run.
    """

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number
        self.folder = folder


class UnsavableState(ValueError):
    """The run's state cannot be saved, whatever the room on the disk."""


class Checkpointer:
    """Saves the run's state every so often, and when a signal asks the run to stop.

    While it is entered as a context, SIGINT and SIGTERM stop the run at its next call of `save_if_due`; a second signal
    stops it at once. The ranks of a distributed run stop and save together: a checkpoint is due when it is on rank 0's
    clock, and a signal to any of them asks all.

    Parameters
    ----------
    folder : Path
        Of the checkpoints.
    every : float or None
        Seconds between two checkpoints; None for none at all, on a signal neither.
    state : callable
        Returns the run's state, as `checkpoint.save` takes it.
    say : callable
        Shows a message.

    Attributes
    ----------
    unchecked : bool
        Whether the state has new parts of which it is not known whether they can be saved; `save_if_due` checks them.
    """

    def __init__(
        self, folder: Path, every: float | None, state: Callable[[], dict[str, Any]], say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.every = every
        self.state = state
        self.say = say
        self.unchecked = True
        self._stop: int | None = None
        self._asked = 0.0
        self._saved = time.monotonic()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Checkpointer:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self._stop is not None:
            if time.monotonic() - self._asked < TWICE:
                return
            raise Interrupted(number, self.folder.parent)
        self._stop, self._asked = number, time.monotonic()
        self.say("stopping after this step; once more stops at once")

    def save_if_due(self) -> None:
        """Save the run's state if it is time, and stop if a signal asked for it. Call it when the state is complete.

        Raises
        ------
        Interrupted
            If a signal asked for it.
        UnsavableState
            If the state cannot be saved.
        """
        time_up = self.every is not None and time.monotonic() - self._saved >= self.every
        stop, due, unchecked = agreement.largest(self._stop or 0, time_up and ranks.is_first(), self.unchecked)
        self.unchecked = False
        if self.every is not None:
            if stop or due:
                self.save()
            elif unchecked:
                self.checked_state()
        if stop:
            raise Interrupted(stop, self.folder.parent)

    @contextmanager
    def state_from_before(self) -> Iterator[None]:
        """Keep the state from before the block in all checkpoints while the block runs."""
        current, before = self.state, self.checked_state()
        self.state = lambda: before
        try:
            yield
        finally:
            self.state = current

    def checked_state(self) -> dict[str, Any]:
        """Return the run's state, which can be saved.

        Raises
        ------
        UnsavableState
            If it cannot be made, or holds what a checkpoint cannot; the message says why, and what was saved last.
        """
        try:
            state = self.state()
            checkpoint.check(state)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            last = checkpoint.latest(self.folder)
            raise UnsavableState(
                f"the run's state cannot be saved: {type(error).__name__}: {error} ({place.filename}, line "
                f"{place.lineno}). It stops here, before more work is lost. "
                + (
                    f"Last saved: {last}; mist run --resume {self.folder.parent} goes on from there once this is mended"
                    if last
                    else "Nothing was saved before"
                )
            ) from error
        return state

    def save(self) -> None:
        """Save the run's state now; UnsavableState as `checked_state` raises it."""
        state = self.checked_state()
        try:
            checkpoint.save(self.folder, state)
        except OSError as error:  # a full disk: the run is worth more than its checkpoint, and the last one is whole
            last = checkpoint.latest(self.folder)
            kept = f"{last.name}, the last one that could, is kept" if last else "there is none to go on from yet"
            self.say(f"the checkpoint could not be written ({error}); the run goes on, {kept}")
        self._saved = time.monotonic()
