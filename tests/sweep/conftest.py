"""What the tests of sweeps share."""

from __future__ import annotations

import forked
import pytest

from mist_ext.sweep import pool


@pytest.fixture
def forked_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes of points forked, so that none waits for Python and torch to start."""
    monkeypatch.setattr(pool, "subprocess", forked.SUBPROCESS)
