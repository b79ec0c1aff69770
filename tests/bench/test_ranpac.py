"""bench/ranpac.py verifies, times and writes what it promises, at a size that takes a moment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import forked
import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "ranpac.py"


def bench(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run(SCRIPT, *map(str, options), "--threads", "1", env=os.environ | {"COLUMNS": "200"})


def test_every_lambda_is_verified_and_the_ratio_is_that_of_the_times(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    size = ["--width", 60, "--features", 16, "--classes", 3, "--turns", 3, "--solves", 18, "--verify-all"]
    done = bench(*size, "--rows", 50, 200, "--json", path)
    assert done.returncode == 0, done.stderr
    assert "all 18 float32 solves timed" in done.stdout
    result = json.loads(path.read_text())
    assert [row["rows"] for row in result["rows"]] == [50, 200]
    for row in result["rows"]:
        assert 0 <= row["weights_distance"] < 1e-8
        assert row["times"] == pytest.approx(18 * row["solve_s"] / row["learn_s"])
        assert row["stated_bytes"] > 8 * 60 * 60
        assert row["ridge"] in [10.0**exponent for exponent in range(-8, 9)]


@pytest.mark.slow
def test_what_was_multiplied_is_said() -> None:
    done = bench("--width", 20, "--features", 16, "--rows", 100, "--solves", 2)
    assert done.returncode == 0, done.stderr
    assert "2 of the 18 float32 solves timed, their median times 18" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--rows", "1"], ["--width", "0"]])
def test_a_size_that_is_too_small_is_refused(option: list[str]) -> None:
    done = bench(*option)
    assert done.returncode == 2
    assert f"{option[0]} " in done.stderr
    assert "expected at least" in done.stderr
