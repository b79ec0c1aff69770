"""What a signal does to a command: its output and exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import miniatures
import pytest
from forked import Forked

Command = Callable[..., tuple[int, str, str]]


def start(*arguments: str, new_session: bool = False) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mist_ext", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
    )


def test_a_signal_to_the_whole_process_group_saves_the_state(tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path / "images", ["a", "b"], {"train": 30, "test": 2})
    options = ["--data", f"folder:{tmp_path / 'images'}", "--tuner", "mist", "--method", "simplecil", "--seeds", "1"]
    process = start(
        "run", *options, "--epochs", "400", "--workers", "2", "--out", str(tmp_path / "out"), new_session=True
    )
    deadline = time.monotonic() + 100
    while not list((tmp_path / "out").glob("*/config.yaml")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)  # some epochs on, with workers at work
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert f"mist run --resume {tmp_path / 'out'}" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out" / "checkpoint").glob("0*/state.json"))


@pytest.mark.slow
def test_an_interrupted_run_goes_on(mist: Command, tmp_path: Path) -> None:
    miniatures.class_folders(tmp_path / "images", ["a", "b", "c", "d"], {"train": 24, "test": 2})
    out = tmp_path / "out"
    options = ["--data", f"folder:{tmp_path / 'images'}", "--tuner", "mist", "--method", "simplecil", "--seeds", "1"]
    options += ["--epochs", "3", "--workers", "0"]
    options += ["--classes-per-task", "2", "--batch-size", "4", "--out", str(out)]
    process = Forked("-m", "mist_ext", "run", *options)
    result = out / "folder-images-mist-simplecil" / "results.json"
    deadline = time.monotonic() + 400
    while not result.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in output
    assert f"go on with mist run --resume {out}" in errors
    assert "Traceback" not in errors
    assert len(json.loads(result.read_text())["runs"][0]["tasks"]) == 1
    assert mist("report", str(out), "--no-figures")[0] == 0
    status, _, errors = mist("run", "--resume", str(out), "--lr", "0.1")
    assert status == 2
    assert "lr is 0.1, was 0.003" in errors
    status, _, errors = mist("run", "--resume", str(out), "--out", "elsewhere")
    assert status == 2
    assert "leave --out and --overwrite out" in errors
    status, output, errors = mist("run", "--resume", str(out))
    assert status == 0, errors
    assert "A_last" in output
    assert len(json.loads(result.read_text())["runs"][0]["tasks"]) == 2
