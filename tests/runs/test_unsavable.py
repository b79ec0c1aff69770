"""A state that no checkpoint can hold stops the run where it first shows, with the reason and what was saved last."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from slow import first_is_quick

from mist_ext.config import Config
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.runs import benchmark, checkpoint
from mist_ext.runs.interruption import Checkpointer, UnsavableState
from mist_ext.tuners.mist import MIST


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    every_nth_digit(16)


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Epoch and batch of each step that was taken."""
    taken: list[tuple[int, int]] = []
    original = MIST.epoch

    def epoch(self: MIST, *arguments: Any):
        for loss in original(self, *arguments):
            taken.append(self.position)
            yield loss

    monkeypatch.setattr(MIST, "epoch", epoch)
    return taken


def run(folder: Path, **options) -> None:
    given = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "epochs": 2, "batch_size": 16, **options}
    benchmark.run(Config(out=str(folder), **given), Console(file=io.StringIO()))


def broken_when_tuning(monkeypatch: pytest.MonkeyPatch, broken: Callable[[], Any]) -> None:
    original = MIST.state_dict
    monkeypatch.setattr(
        MIST, "state_dict", lambda self: original(self) | ({"own": broken()} if self.position[0] else {})
    )


def missing() -> Any:
    return {}["blocks.0.weight"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (missing, r"KeyError: 'blocks.0.weight' \(.*test_unsavable.py, line \d+\)"),
        (lambda: {1, 2}, r"TypeError: /state/tuner/own is a set, which a checkpoint cannot hold"),
    ],
    ids=["an error", "a set"],
)
@pytest.mark.parametrize(
    ("every", "last"), first_is_quick([("1h", "Nothing was saved before"), ("0s", r"Last saved: .*/\d{6}; mist run")])
)
def test_it_stops_at_the_first_step_with_such_a_state(
    broken: Callable,
    reason: str,
    every: str,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    positions: list[tuple[int, int]],
) -> None:
    with monkeypatch.context() as patched:
        broken_when_tuning(patched, broken)
        with pytest.raises(UnsavableState, match=rf"{reason}.*{last}"):
            run(tmp_path, checkpoint_every=every)
    assert positions[-1] == (1, 0)  # the first that tunes
    benchmark.resume(tmp_path, Console(file=io.StringIO()))  # once it is mended


@pytest.mark.parametrize(("learned", "lines"), [(False, []), (True, [1])], ids=["before a step", "after a task"])
def test_a_method_is_tried_as_soon(
    learned: bool, lines: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: list[tuple[int, int]]
) -> None:
    original = SimpleCIL.state_dict

    def state_dict(self: SimpleCIL) -> dict[str, Any]:
        return {"own": object()} if not learned or len(self.counts) else original(self)

    monkeypatch.setattr(SimpleCIL, "state_dict", state_dict)
    with pytest.raises(UnsavableState, match="/state/learners/simplecil/own is a object"):
        run(tmp_path)
    assert [len(log.read_text().splitlines()) for log in tmp_path.glob("*/log.jsonl")] == lines
    assert learned or positions == [(0, 0)]


def test_a_signal_does_not_hide_it(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "checkpoint", 3600.0, lambda: {"own": {1}}, lambda message: None)
    checkpointer.unchecked = False
    checkpointer._stop = 15
    with pytest.raises(UnsavableState, match="/own is a set"):
        checkpointer.save_if_due()


def test_a_run_without_checkpoints_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_when_tuning(monkeypatch, missing)
    run(tmp_path, checkpoint_every="never")
    assert checkpoint.latest(tmp_path / "checkpoint") is None


def test_the_state_is_tried_once_in_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], MIST.state_dict
    monkeypatch.setattr(MIST, "state_dict", lambda self: made.append((self.task, *self.position)) or original(self))
    run(tmp_path, epochs=3)
    in_epochs = [position for position in made if position[2]]
    assert len(in_epochs) <= 2 * 3 + 2  # tasks x epochs, and between tasks
