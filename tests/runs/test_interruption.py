"""A run that is asked to stop, or whose checkpoint cannot be written."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mist_ext.config import Config
from mist_ext.runs import benchmark, interruption
from mist_ext.runs.interruption import Checkpointer, Interrupted


def test_a_full_disk_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_nth_digit: Callable[[int], None]
) -> None:
    every_nth_digit(16)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mist_ext.runs.checkpoint.save_file", full)
    output = io.StringIO()
    options = Config(
        out=str(tmp_path), tuner=["mist"], method=["simplecil"], seeds=[1], epochs=2, checkpoint_every="0s"
    )
    benchmark.run(options, Console(file=output, width=300))
    assert "the checkpoint could not be written" in output.getvalue()
    assert "the run goes on, there is none to go on from yet" in output.getvalue()
    assert "summary" in json.loads((tmp_path / "digits-mist-simplecil" / "results.json").read_text())


def test_a_second_signal_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "TWICE", 0.0)  # as if it came later than the first one's echo by torchrun
    before = signal.getsignal(signal.SIGINT)
    said: list[str] = []
    with Checkpointer(tmp_path, 0.0, dict, said.append):
        signal.raise_signal(signal.SIGINT)
        assert said == ["stopping after this step; once more stops at once"]
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.iterdir())
