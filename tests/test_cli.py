"""The command as a user starts it: real processes, their output and exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SMALL = ["--tuner", "none", "--method", "simplecil", "--seeds", "1"]


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mist_ext", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # On a busy machine the threads of small models wait for each other, tens of times longer than they work.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def mist(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def test_info_names_versions_backend_and_devices() -> None:
    status, output, _ = mist("info")
    assert status == 0
    for name in ("mist_ext", "torch", "CPU kernels", "CUDA kernels loaded", "devices"):
        assert name in output


def test_help_explains_every_option() -> None:
    status, output, _ = mist("run", "--help")
    assert status == 0
    blocks = output.split("options:")[1].replace("\n", " ").split(" --")[1:]
    for block in blocks:
        explanation = block.split("  ", 1)[-1].strip()
        assert len(explanation) > 20, block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--epcohs", "3"], "unknown option '--epcohs'; did you mean '--epochs'"),
        (["run", "--data", "digts"], "unknown data set 'digts'; did you mean 'digits'?"),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["run", "--lr", "fast"], "lr"),
        (["report", "nowhere"], "nowhere is no folder"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(arguments: list[str], message: str) -> None:
    status, output, errors = mist(*arguments)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert output == ""


def test_an_unknown_key_in_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("sedes: [1]\n")
    status, _, errors = mist("run", str(tmp_path / "my.yaml"))
    assert status == 2
    assert "did you mean 'seeds'" in errors


def test_flags_come_after_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("tuner: [none]\nmethod: [simplecil]\nseeds: [5, 6]\nclasses_per_task: 2\n")
    out = tmp_path / "out"
    status, _, errors = mist("run", str(tmp_path / "my.yaml"), "--seeds", "7", "--out", str(out))
    assert status == 0, errors
    result = json.loads((out / "digits-none-simplecil" / "results.json").read_text())
    assert [run["seed"] for run in result["runs"]] == [7]
    assert len(result["runs"][0]["tasks"]) == 5


def test_a_cell_can_be_repeated_from_its_configuration(tmp_path: Path) -> None:
    status, output, errors = mist("run", *SMALL, "--out", str(tmp_path / "first"))
    assert status == 0, errors
    assert "A_last" in output
    written = tmp_path / "first" / "digits-none-simplecil" / "config.yaml"
    assert "out" not in yaml.safe_load(written.read_text())
    status, _, errors = mist("run", str(written), "--out", str(tmp_path / "second"))
    assert status == 0, errors
    first, second = (
        json.loads((tmp_path / name / "digits-none-simplecil" / "results.json").read_text())
        for name in ("first", "second")
    )
    assert first["runs"][0]["accuracy_matrix"] == second["runs"][0]["accuracy_matrix"]


def test_report_rebuilds_tables_and_figures(tmp_path: Path) -> None:
    mist("run", *SMALL, "--out", str(tmp_path / "run"))
    figure = tmp_path / "run" / "digits-none-simplecil" / "matrix.png"
    figure.unlink()
    status, output, errors = mist("report", str(tmp_path / "run"), "--out", str(tmp_path / "joint"))
    assert status == 0, errors
    assert "simplecil" in output
    assert figure.is_file()
    assert (tmp_path / "joint" / "summary.md").is_file()


def test_ctrl_c_leaves_the_finished_tasks(tmp_path: Path) -> None:
    process = start(
        "run", "--tuner", "mist", "--method", "simplecil", "--seeds", "1", "--epochs", "2", "--out", str(tmp_path)
    )
    result = tmp_path / "digits-mist-simplecil" / "results.json"
    deadline = time.monotonic() + 400
    while not result.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert len(json.loads(result.read_text())["runs"][0]["tasks"]) == 1
    assert mist("report", str(tmp_path))[0] == 0
