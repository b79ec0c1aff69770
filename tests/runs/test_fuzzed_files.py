"""Damaged files of every kind that is read end in an error that names them, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from slow import often, slow

FUZZ = Path(__file__).parents[1] / "fuzz"


def damaged(*arguments: object) -> str:
    """What fuzzing says that found nothing."""
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("count", [10, slow(often(100))])
def test_no_damage_ends_in_a_crash_a_hang_or_another_s_error(count: int) -> None:
    cases = 19 * count + count // 10  # of each kind that is read within the process, and of the one that is not
    assert f"{cases} cases, 0 failed" in damaged(count)


@pytest.mark.slow
def test_ten_thousand_damaged_deltas_are_errors_or_whole() -> None:
    assert "10000 cases, 0 failed" in damaged(5000, "delta", "mended_delta")
