"""Runs that diverge: the step is named, nothing damaged is saved; signs of failed training are recorded and told."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from mist_ext import cli, report
from mist_ext.backbones import models
from mist_ext.config import Config
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.results import warning_signs
from mist_ext.runs import benchmark, checkpoint
from mist_ext.tuners.divergence import Diverged
from mist_ext.tuners.objective import MutualInformation

SETTINGS: dict[str, Any] = {"method": ["simplecil"], "seeds": [1], "epochs": 2, "checkpoint_every": "0s"}


@pytest.fixture(autouse=True)
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    """Two tasks of 60 images and two batches each."""
    every_nth_digit(12)


def run(folder: Path, **options: Any) -> str:
    output = io.StringIO()
    benchmark.run(Config(out=str(folder), **{**SETTINGS, **options}), Console(file=output, width=300))
    return output.getvalue()


def lose_a_number(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The n-th loss of a run is NaN."""
    original, calls = MutualInformation.forward, [0]

    def forward(self: MutualInformation, *arguments: Any) -> Tensor:
        calls[0] += 1
        return original(self, *arguments) * (math.nan if calls[0] == at else 1)

    monkeypatch.setattr(MutualInformation, "forward", forward)


def test_the_step_is_named_the_last_checkpoint_is_good_and_resuming_ends_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    where = (
        r"seed 1 mist task 2/2: training diverged in task 2, tune, epoch 1, batch 2 of 2: the loss is NaN; lower --lr"
    )
    with monkeypatch.context() as patched:
        lose_a_number(patched, 8)
        with pytest.raises(Diverged, match=rf"{where} .*mist run --resume {out} would .* end here again"):
            run(out, tuner=["mist"])
    saved = checkpoint.load_latest(out / "checkpoint", pytest.fail)
    assert saved is not None
    assert saved["state"]["tuner"]["position"] == (1, 1)
    tensors = [t for file in (out / "checkpoint").glob("*/*.safetensors") for t in load_file(file).values()]
    assert len(tensors) > 100
    assert all(t.isfinite().all() for t in tensors if t.is_floating_point())
    with monkeypatch.context() as patched:
        lose_a_number(patched, 1)
        with pytest.raises(Diverged, match=where):
            benchmark.resume(out, Console(file=io.StringIO()))
    benchmark.resume(out, Console(file=io.StringIO()))  # without the fault it goes on
    run(tmp_path / "whole", tuner=["mist"])
    first, second = (
        json.loads((folder / "digits-mist-simplecil" / "results.json").read_text())["runs"][0]
        for folder in (out, tmp_path / "whole")
    )
    assert first["accuracy_matrix"] == second["accuracy_matrix"]
    assert [task["losses"] for task in first["tasks"]] == [task["losses"] for task in second["tasks"]]
    assert [list(task["losses"]) for task in first["tasks"]] == [["score", "tune"]] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "simplecil", "--tuner", "mist", "--lr", "1e10"], "lower --lr (1e+10)"),
        (["--method", "simplecil", "--tuner", "gradient", "--lr", "1e10"], "lower --lr (1e+10)"),
        (["--tuner", "none", "--method", "ease", "--method-options", "lr=1e10"], "--method-options lr=1e+09"),
    ],
)
def test_the_command_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", "--data", "digits", "--seeds", "1", "--epochs", "3", *options, "--out", str(tmp_path / "run")])
    assert ending.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("mist: seed 1 ")
    assert len(told.splitlines()) == 1


def test_features_that_are_not_finite_are_told_with_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mist_ext.runs.features.backbone_features", lambda backbone, pixels: torch.full((len(pixels), 3), math.nan)
    )
    with pytest.raises(Diverged, match=r"seed 1 none task 1/2: 56 of 56 images .* features that are NaN or infinite"):
        run(tmp_path, tuner=["none"])


def test_weights_that_hold_an_infinity_are_refused_before_any_work(tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in models.create("vit_nano").state_dict().items()}
    weights["norm.bias"][5] = math.inf
    save_file(weights, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"mine\.safetensors.* in 'norm\.bias' that are not finite"):
        run(tmp_path / "run", weights=str(tmp_path / "mine.safetensors"))
    assert not (tmp_path / "run").exists()


def test_accuracy_near_chance_is_recorded_and_told_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(self: SimpleCIL, features: Tensor) -> Tensor:
        return torch.zeros(len(features), len(self.counts), dtype=torch.float64)

    monkeypatch.setattr(SimpleCIL, "score", guess)
    told = run(tmp_path, tuner=["none"])
    assert "warning: seed 1 none task 2/2: simplecil's accuracy of" in told
    folder = tmp_path / "digits-none-simplecil"
    tasks = json.loads((folder / "results.json").read_text())["runs"][0]["tasks"]
    assert [task["warnings"] for task in tasks] == [["near_chance"]] * 2
    assert [json.loads(line)["warnings"] for line in (folder / "log.jsonl").read_text().splitlines()] == [
        ["near_chance"]
    ] * 2
    output = io.StringIO()
    Console(file=output, width=300).print(report.table(report.read_experiments([tmp_path])))
    note = "warning: digits, none, simplecil: accuracy near chance in 2 of 2 tasks"
    assert note in map(str.rstrip, output.getvalue().splitlines())  # nothing was trained, so there is no advice


def test_a_loss_that_rises_is_recorded_and_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = MutualInformation.forward, [0]

    def forward(self: MutualInformation, *arguments: Any) -> Tensor:
        calls[0] += 1
        return original(self, *arguments) + calls[0]

    monkeypatch.setattr(MutualInformation, "forward", forward)
    told = run(tmp_path, tuner=["mist"], method=["simplecil", "ranpac"], classes_per_task=10)
    lines = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert "seed 1 mist task 1/1: the loss began at" in lines[0]
    for method in ("simplecil", "ranpac"):
        content = json.loads((tmp_path / f"digits-mist-{method}" / "results.json").read_text())
        assert content["runs"][0]["tasks"][0]["warnings"] == ["loss_rose"]


@pytest.mark.parametrize(
    ("losses", "one_objective", "phases"),
    [
        ({"score": [2.0], "tune": [2.2]}, True, ["tune"]),
        ({"score": [2.0], "tune": [2.2]}, False, []),
        ({"score": [2.0], "tune": [1.0, 1.2]}, False, ["tune"]),
        ({"tune": [2.0, 3.0, 2.05]}, True, []),
        ({"tune": [2.0]}, True, []),
        ({"learn": [-1.0, -0.9], "align": [1.0, 0.9]}, True, ["learn"]),
        ({}, True, []),
    ],
)
def test_a_loss_rises_if_its_last_epoch_is_above_its_first(
    losses: dict[str, list[float]], one_objective: bool, phases: list[str]
) -> None:
    found = list(warning_signs.of_losses(losses, one_objective))
    assert [words.split("(")[1].split(")")[0] for _, words in found] == phases
    assert {sign for sign, _ in found} <= {"loss_rose"}


@pytest.mark.parametrize(
    ("accuracy", "chance", "near"),
    [
        (10, 10, True),
        (29, 10, True),
        (31, 10, False),
        (2.9, 1, True),
        (3.1, 1, False),
        (100, 100, False),
        (66, 50, True),
    ],
)
def test_chance_is_what_guessing_reaches(accuracy: float, chance: float, near: bool) -> None:
    assert bool(list(warning_signs.of_accuracy("simplecil", accuracy, chance))) == near
