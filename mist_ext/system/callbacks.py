"""What work in progress reports while it runs: how far it is, that its state may be saved, and numbers to plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


def _no_display(iterable: Iterable[Any], _description: str, _total: int) -> Iterable[Any]:
    return iterable


def _no_checkpoint() -> None:
    pass


def _no_log(_name: str, _value: Any, _step: int) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """Functions that long work calls as it goes; by default they do nothing.

    Parameters
    ----------
    progress : callable
        Takes an iterable, a description and the number of its items; returns an iterable of the same items, and shows
        how far it is.
    checkpoint_if_due : callable
        Called after every step, when the state is complete: saves it where that is due, or stops by an exception.
    log : callable
        Takes a number's name, the number and the step that it belongs to.
    """

    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] = _no_display
    checkpoint_if_due: Callable[[], None] = _no_checkpoint
    log: Callable[[str, Any, int], None] = _no_log


NO_CALLBACKS = Callbacks()
