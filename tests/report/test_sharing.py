"""What a report says of the work that methods of a run shared, on results written by hand and of real runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hand_made import results, task_record
from rich.console import Console

from mist_ext import report
from mist_ext.config import Config
from mist_ext.report import Experiment, parse_experiment
from mist_ext.report.numbers import duration
from mist_ext.report.sharing import Shared, sharing
from mist_ext.runs import benchmark


def experiment(
    folder: str, tuner: str, method: str, seconds: dict[str, float], seeds: tuple[int, ...] = (1,)
) -> Experiment:
    task = task_record([0], [90.0], seconds=seconds)
    content = results({seed: [task] for seed in seeds}, tuner, method)
    return parse_experiment(content, f"{folder}/digits-{tuner}-{method}/results.json")


TUNED = {"score": 2.0, "select": 1.0, "tune": 27.0, "learn": 5.0, "evaluate": 3.0}
EXTRACTED = {"shared_extraction": 4.0}
EXPERIMENTS = [
    experiment("out", "mist", "simplecil", TUNED | EXTRACTED, (1, 2)),
    experiment("out", "mist", "ranpac", TUNED | EXTRACTED, (1, 2)),
    experiment("out", "mist", "ease", TUNED, (1, 2)),  # which learns from features of its own
    experiment("out", "none", "simplecil", EXTRACTED),
    experiment("other", "mist", "simplecil", TUNED | EXTRACTED),
]


def test_what_was_done_once_for_each_tuner_and_seed_is_counted() -> None:
    found = sharing(EXPERIMENTS)
    assert found.tuning == Shared(done=3, needed=7, saved=2 * 2 * 30.0)
    assert found.extraction == Shared(done=4, needed=6, saved=2 * 4.0)
    assert found.sentence() == (
        "Shared by the methods of a run: a backbone was tuned 3 instead of 7 times (2 min saved), "
        "its features were extracted 4 instead of 6 times (8.0 s saved)."
    )


def test_experiments_of_different_runs_share_nothing() -> None:
    assert sharing([EXPERIMENTS[0], EXPERIMENTS[4]]).sentence() == ""
    assert "Shared by" not in report.as_text([EXPERIMENTS[4]], "markdown")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.42, "0.4 s"), (12.4, "12 s"), (720, "12 min"), (12_300, "3.4 h")], ids=str
)
def test_a_duration_has_two_digits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_a_run_says_what_its_methods_shared(tmp_path: Path, every_nth_digit: Callable[[int], None]) -> None:
    every_nth_digit(12)
    options: dict[str, Any] = {"tuner": ["none", "mist"], "method": ["simplecil", "fecam", "aper_ssf"], "seeds": [1]}
    options |= {"epochs": 2, "method_options": ["aper_ssf.epochs=1"], "out": str(tmp_path / "run")}
    benchmark.run(Config(**options), Console(file=io.StringIO()))
    experiments = report.read_experiments([tmp_path / "run"])
    found = sharing(experiments)
    assert (found.tuning.done, found.tuning.needed) == (1, 3)
    assert (found.extraction.done, found.extraction.needed) == (2, 4)
    tuned = next(experiment for experiment in experiments if experiment.tuner == "mist")
    once = sum(tuned.seconds[phase] or 0 for phase in ("score", "select", "tune"))
    assert found.tuning.saved == pytest.approx(2 * once)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(report.table(experiments))
    assert found.sentence() in console.export_text()
    for form in ("summary.md", "report.html", "summary.tex"):
        assert found.sentence() in (tmp_path / "run" / form).read_text()
