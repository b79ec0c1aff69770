"""`mist delta merge`: from files to a file, and what the merged backbone recognises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mist_ext.deltas import TaskDelta
from mist_ext.deltas.chains import compose, rebase
from mist_ext.deltas.merging import merge


def test_options_reach_the_merge(mist: Callable, files, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    options = ["--method", "dare_ties", "--weight", "1", "-0.5", "--density", "0.4", "--lambda", "0.7", "--seed", "3"]
    status, output, errors = mist("merge", *files.paths, "--chain", "--leave-out", "2", *options, "--out", out)
    assert status == 0, errors
    assert "2 deltas merged by dare_ties" in output
    moved = rebase(files.deltas)
    settings = {"weights": [1, -0.5], "density": 0.4, "lambda_": 0.7, "seed": 3}
    assert TaskDelta.load(out) == merge([moved[0], moved[2]], "dare_ties", **settings)


def test_a_chain_without_its_switch_says_how(mist: Callable, files, tmp_path: Path) -> None:
    status, _, errors = mist("merge", *files.paths, "--out", tmp_path / "merged.safetensors")
    assert status == 2
    assert "they are a chain: add --chain" in errors


def test_compose_is_the_chain(mist: Callable, files, tmp_path: Path) -> None:
    out = tmp_path / "composed.safetensors"
    assert mist("merge", *files.paths, "--method", "compose", "--out", out)[0] == 0
    assert TaskDelta.load(out) == compose(files.deltas)
    status, _, errors = mist(
        "merge", *files.paths, "--method", "compose", "--density", "0.5", "--out", out, "--overwrite"
    )
    assert status == 2
    assert "leave --weight, --density" in errors


def test_the_merged_backbone_is_tested_on_the_tasks_of_the_run(
    mist: Callable, experiment: Path, tmp_path: Path
) -> None:
    """All tasks moved to the base and added are the run's own backbone at its end."""
    out = tmp_path / "merged.safetensors"
    status, output, errors = mist("merge", experiment, "--chain", "--evaluate", experiment, "--out", out)
    assert status == 0, errors
    rows = re.findall(r"\b([12]|mean) ([\d.]+) ([\d.]+)", output.partition("merged ")[2])
    assert [name for name, _, _ in rows] == ["1", "2", "mean"]
    for _, run, merged in rows:
        assert abs(float(run) - float(merged)) < 5
        assert float(merged) > 50
    assert out.is_file()


def test_a_number_that_is_no_delta_is_not_left_out(mist: Callable, files, tmp_path: Path) -> None:
    status, _, errors = mist("merge", *files.paths, "--chain", "--leave-out", "4", "--out", tmp_path / "m.safetensors")
    assert status == 2
    assert "leave_out is 4, expected the number of a delta, 1 to 3" in errors
