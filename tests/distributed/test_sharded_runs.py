"""Runs whose backbone is spread over the processes (--shard) end as those that have it whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from processes import Failed, outcomes_of, together
from rich.console import Console
from small_runs import furthest, results, run, weights
from stopping import stop_at

from mist_ext import checkpoint, experiment, run_folder, trained
from mist_ext.interruption import Interrupted


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (2, {}),
        (4, {}),  # there are fewer batches to extract features from than ranks, so some go through none of their own
        (2, {"in_backward": False, "checkpointing": True}),
        (2, {"score_objective": "ce", "tune_objective": "ce"}),
        (3, {"tuner": ["none", "random", "magnitude"]}),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, int) else ",".join(f"{k}={v}" for k, v in value.items()) or "mist"
    ),
)
def test_a_sharded_run_ends_as_one_that_is_not(
    size: int, options: dict, alone: Callable[..., Path], tmp_path: Path
) -> None:
    together(size, lambda _: run(tmp_path / "run", shard=True, **options))
    one = alone(**options)
    assert results(tmp_path / "run") == results(one)
    assert furthest(weights(tmp_path / "run"), weights(one)) < 1e-6


def measured(folder: Path) -> list:
    """What was selected, kept and changed, in every task."""
    (file,) = folder.glob("*/results.json")
    names = ("selected_fraction", "kept_fraction", "changed_fraction", "changed_fraction_all")
    (seed,) = json.loads(file.read_text())["runs"]
    selected = [[entry["selected"] for entry in task["selection"]] for task in seed["tasks"]]
    return [[task[name] for name in names] for task in seed["tasks"]] + selected


def test_what_is_measured_is_that_of_whole_tensors(alone: Callable[..., Path], tmp_path: Path) -> None:
    options = {"method": ["simplecil"], "save": "none"}
    together(2, lambda _: run(tmp_path / "run", shard=True, **options))
    assert measured(tmp_path / "run") == measured(alone(**options))


def test_reduced_precision_stays_close(alone: Callable[..., Path], tmp_path: Path) -> None:
    together(2, lambda _: run(tmp_path / "run", shard=True, precision="bf16-pure"))
    difference = furthest(weights(tmp_path / "run"), weights(alone(precision="bf16-pure")))
    assert 0 < difference < 3e-2  # each rank rounds its rows' part of a gradient to bfloat16


def test_a_classifier_of_a_sharded_run_predicts(tmp_path: Path) -> None:
    together(2, lambda _: run(tmp_path / "run", shard=True, method=["simplecil"]))
    classifier = trained.load(tmp_path / "run")
    ((best, *_),) = classifier.predict([Image.new("L", (32, 32))])
    assert best[0] in classifier.class_names


@pytest.mark.parametrize(
    ("before", "after", "moment"),
    [
        pytest.param(2, 4, 3, id="scoring, 2 to 4"),
        pytest.param(4, 2, 11, id="tuning, 4 to 2"),
        pytest.param(2, 1, 13, id="extracting, 2 to 1"),
        pytest.param(1, 2, 18, id="scoring the second task, 1 to 2"),
        pytest.param(2, 4, 24, id="tuning on the second task, 2 to 4"),
    ],
)
def test_a_sharded_run_goes_on_with_another_number_of_processes(
    before: int, after: int, moment: int, alone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupted(at: int, work: Callable[[], object]) -> None:
        stop_at(monkeypatch, at, rank=0)
        with pytest.raises(Interrupted):
            work()

    begin = partial(run, folder, shard=True, checkpoint_every="1h")
    if before == 1:  # which cannot begin such a run, but go on with one
        together(2, lambda _: interrupted(1, begin))
        together(1, lambda _: interrupted(moment - 1, partial(experiment.resume, folder, Console(quiet=True))))
    else:
        together(before, lambda _: interrupted(moment, begin))
    saved = max((folder / run_folder.CHECKPOINTS).glob("0*"))
    if before > 1:
        assert len(list((saved / checkpoint.SHARDS).iterdir())) == before
    together(after, lambda _: experiment.resume(folder, Console(quiet=True)))
    assert results(folder) == results(alone())
    assert furthest(weights(folder), weights(alone())) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuner": ["full"]}, "shard is True, but tuner 'full' trains whole tensors"),
        ({"tuner": ["gradient"]}, "shard is True, but tuner 'gradient' trains whole tensors"),
        ({"method": ["slca"]}, "shard is True, but method 'slca' trains whole tensors"),
        ({"dynamics": "published"}, "shard is True, but published dynamics have torch's dense optimiser"),
        ({"exchange": "dense"}, "shard is True, but exchange is 'dense'"),
        (
            {"backbone": "resnet18", "weights": "none"},
            "shard spreads a backbone block by block, but back",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_what_does_not_work_on_parts_is_refused(options: dict, message: str, tmp_path: Path) -> None:
    for outcome in outcomes_of(2, lambda _: run(tmp_path / "run", shard=True, **options)):
        assert isinstance(outcome, Failed)
        assert message in str(outcome)
    assert not (tmp_path / "run").exists()


def test_one_process_has_nothing_to_spread_over(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shard is True, but this is the only process.*torchrun --nproc-per-node"):
        run(tmp_path / "run", shard=True)


def test_torchrun_and_the_command_line_end_as_a_plain_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mist_ext", "run", "--tuner", "mist", "--method", "simplecil", "--seeds", "1"]
    command += ["--epochs", "2", "--classes-per-task", "10", "--batch-size", "144"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, "--out", str(tmp_path / "one")], check=True, capture_output=True, timeout=240)
    sharded = [*torchrun, *command[1:], "--shard", "--out", str(tmp_path / "two")]
    done = subprocess.run(sharded, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert "Warning" not in done.stderr
