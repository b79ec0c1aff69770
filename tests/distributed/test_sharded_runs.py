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
from slow import first_is_quick
from small_runs import HOW, furthest, results, run, weights
from stopping import stop_at

from mist_ext.results import manifest
from mist_ext.runs import benchmark, checkpoint, classifiers
from mist_ext.runs.interruption import Interrupted


@pytest.mark.parametrize(
    ("size", "options"),
    first_is_quick(
        [
            (2, {}),
            (
                4,
                {},
            ),  # there are fewer batches to extract features from than ranks, so some go through none of their own
            (2, {"in_backward": False, "checkpointing": True}),
            (2, {"score_objective": "ce", "tune_objective": "ce"}),
            (2, {"score_passes": 3}),
            (3, {"tuner": ["random"]}),
            (2, {"tuner": ["none", "magnitude"]}),
        ]
    ),
    ids=lambda value: (
        str(value) if isinstance(value, int) else ",".join(f"{k}={v}" for k, v in value.items()) or "mist"
    ),
)
def test_a_sharded_run_ends_as_one_that_is_not(
    size: int, options: dict, alone: Callable[..., Path], spread: Callable[..., Path]
) -> None:
    several = spread(size, **options)
    one = alone(**{name: value for name, value in options.items() if name not in HOW})
    assert results(several) == results(one)
    assert furthest(weights(several), weights(one)) < 1e-6


def measured(folder: Path) -> list:
    """What was selected, kept and changed, in every task."""
    file, *_ = folder.glob("*/results.json")  # the methods have the tuner in common
    names = ("selected_fraction", "kept_fraction", "changed_fraction", "changed_fraction_all")
    (seed,) = json.loads(file.read_text())["runs"]
    selected = [[entry["selected"] for entry in task["selection"]] for task in seed["tasks"]]
    return [[task[name] for name in names] for task in seed["tasks"]] + selected


def test_what_is_measured_is_that_of_whole_tensors(alone: Callable[..., Path], spread: Callable[..., Path]) -> None:
    assert measured(spread(2)) == measured(alone())


@pytest.mark.slow
def test_reduced_precision_stays_close(alone: Callable[..., Path], spread: Callable[..., Path]) -> None:
    options = {"precision": "bf16-pure"}
    difference = furthest(weights(spread(2, **options)), weights(alone(**options)))
    assert 0 < difference < 3e-2  # each rank rounds its rows' part of a gradient to bfloat16


def test_a_classifier_of_a_sharded_run_predicts(spread: Callable[..., Path]) -> None:
    classifier = classifiers.load(spread(2) / "digits-mist-simplecil")
    ((best, *_),) = classifier.predict([Image.new("L", (32, 32))])
    assert best[0] in classifier.class_names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "call"),
    [
        pytest.param(2, 4, 3, id="scoring, 2 to 4"),
        pytest.param(4, 2, 7, id="tuning, 4 to 2"),
        pytest.param(2, 1, 9, id="extracting, 2 to 1"),
        pytest.param(1, 2, 14, id="scoring the second task, 1 to 2"),
        pytest.param(2, 4, 18, id="tuning on the second task, 2 to 4"),
    ],
)
def test_a_sharded_run_goes_on_with_another_number_of_processes(
    before: int, after: int, call: int, alone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def interrupted(at: int, work: Callable[[], object]) -> None:
        stop_at(monkeypatch, at, rank=0)
        with pytest.raises(Interrupted):
            work()

    begin = partial(run, folder, shard=True, checkpoint_every="1h")
    if before == 1:  # which cannot begin such a run, but go on with one
        together(2, lambda _: interrupted(1, begin))
        together(1, lambda _: interrupted(call - 1, partial(benchmark.resume, folder, Console(quiet=True))))
    else:
        together(before, lambda _: interrupted(call, begin))
    saved = max((folder / manifest.CHECKPOINTS).glob("0*"))
    if before > 1:
        assert len(list((saved / checkpoint.SHARDS).iterdir())) == before
    together(after, lambda _: benchmark.resume(folder, Console(quiet=True)))
    assert results(folder) == results(alone())
    assert furthest(weights(folder), weights(alone())) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuner": ["full"]}, "shard is True, but tuner 'full' trains whole tensors"),
        ({"tuner": ["gradient"]}, "shard is True, but tuner 'gradient' trains whole tensors"),
        ({"method": ["slca"]}, "shard is True, but method 'slca' trains whole tensors"),
        ({"dynamics": "published"}, "shard is True, but dynamics is 'published': the state of torch's dense optimiser"),
        ({"exchange": "dense"}, "shard is True, but exchange is 'dense'"),
        ({"drop": "updates"}, "shard is True, but drop is 'updates'"),
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


@pytest.mark.slow
def test_torchrun_and_the_command_line_end_as_a_plain_run(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # other processes have all six blocks
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "mist_ext", "run", "--shard", "--tuner", "mist", "--method", "simplecil", "--seeds", "1"]
    command += ["--epochs", "2", "--data", f"folder:{photographs}", "--classes-per-task", "2", "--batch-size", "10"]
    done = subprocess.run(
        [*torchrun, *command, "--out", str(tmp_path / "two")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    options = {"method": ["simplecil"], "epochs": 2, "classes_per_task": 2, "batch_size": 10}
    run(tmp_path / "one", data=f"folder:{photographs}", **options)
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert "Warning" not in done.stderr
    assert done.stdout.count("A_last") >= 1
    assert done.stdout.count("Results, tables and figures:") == 1
    (file,) = (tmp_path / "two").glob("*/results.json")
    assert json.loads(file.read_text())["environment"]["ranks"] == 2
