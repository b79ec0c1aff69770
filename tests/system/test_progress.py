"""Progress as plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mist_ext.system import progress
from mist_ext.system.progress import Progress


def test_plain_lines_tell_what_is_done_and_how_much_time_is_left() -> None:
    output = io.StringIO()
    with Progress(Console(file=output, width=80), 2) as shown:
        shown.begin("seed 1 mist task 1/2")
        shown.advance("simplecil 80.00 %")
    line = output.getvalue()
    assert line.startswith("seed 1 mist task 1/2: simplecil 80.00 %  [1/2, 0:00:00 gone, 0:00:00 left]")


def test_a_long_phase_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    output = io.StringIO()
    with Progress(Console(file=output, width=80), 1) as shown:
        shown.begin("seed 1")
        assert list(shown.track(iter("abc"), "score", 3)) == ["a", "b", "c"]
    assert [line.split(",")[0] for line in output.getvalue().splitlines()] == [
        "seed 1: score 1/3",
        "seed 1: score 2/3",
        "seed 1: score 3/3",
    ]
