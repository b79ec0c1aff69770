"""Runs that are asked to stop."""

from __future__ import annotations

import os
import signal

import pytest

from mist_ext.distributed import ranks
from mist_ext.runs.interruption import Checkpointer


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int, rank: int) -> None:
    """Ask the run to stop before its n-th call of `save_if_due`, on one rank, as a signal would."""
    original, seen = Checkpointer.save_if_due, [0]

    def counted(checkpointer: Checkpointer) -> None:
        seen[0] += 1
        if seen[0] == call and ranks.rank() == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        original(checkpointer)

    monkeypatch.setattr(Checkpointer, "save_if_due", counted)
