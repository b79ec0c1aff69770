"""bench/deltas.py: verifies, and its figures are those of the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.slow
def test_sizes_and_times_of_a_small_model_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "deltas.json"
    options = ["--model", "test_vit.r160_in1k", "--rounds", "1", "--threads", "1", "--json", str(path)]
    done = subprocess.run([sys.executable, BENCH / "deltas.py", *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    size = result["bytes"]
    assert size["checkpoint"] == 4 * result["parameters"]
    assert (
        size["entropy bound, forward-only"] < size["forward-only file"] < size["file, both ways"] < size["checkpoint"]
    )
    assert {"apply", "undo", "swap", "save", "load", "load_state_dict", "index_copy_"} <= result["ms"].keys()
    assert min(result["ms"].values()) > 0
    assert 0.75 * size["checkpoint"] < result["traffic"]["lines"] <= size["checkpoint"] + 64 * 300
    assert result["bound_ms"] > 0
