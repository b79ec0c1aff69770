"""Runs that are asked to stop."""

from __future__ import annotations

import os
import signal

import pytest

from mist_ext.distributed import ranks
from mist_ext.runs.interruption import Saver


def stop_at(monkeypatch: pytest.MonkeyPatch, moment: int, rank: int) -> None:
    """Ask the run to stop before its n-th moment, on one rank, as a signal would."""
    original, seen = Saver.moment, [0]

    def counted(saver: Saver, state) -> None:
        seen[0] += 1
        if seen[0] == moment and ranks.rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        original(saver, state)

    monkeypatch.setattr(Saver, "moment", counted)
