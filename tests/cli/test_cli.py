"""The command as a user starts it: real processes, their output and exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import miniatures
import pytest
import yaml

from mist_ext import data

SMALL = ["--tuner", "none", "--method", "simplecil", "--seeds", "1"]


def start(*arguments: str, new_session: bool = False) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mist_ext", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
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
    blocks = output.split("\noptions:")[1].replace("\n", " ").split("  --")[1:]
    assert len(blocks) > 50
    for block in blocks:
        explanation = block.split("  ", 1)[-1].strip()
        assert len(explanation) > 20, block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--epcohs", "3"], "unknown option '--epcohs'; did you mean '--epochs'"),
        (["run", "--data", "digts"], "unknown data set 'digts'; did you mean 'digits'?"),
        (["run", "--ranpac-width", "500"], "unknown option '--ranpac-width'; width is an option of the methods ranpac"),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["run", "--lr", "fast"], "lr"),
        (["report", "nowhere"], "nowhere is no folder"),
        (["run", "--resume", "nowhere"], "no run was begun in nowhere"),
        (["run", "--preset", "mist/cifar10"], "unknown preset 'mist/cifar10'; did you mean 'mist/cifar100'"),
        (["run", "--checkpoint-every", "5"], "checkpoint_every is '5', expected a duration such as 30s"),
        (["run", "--data", "folder:"], "expected folder:PATH"),
        (["run", "--pres", "mist/cifar100"], "unknown option '--pres'; did you mean '--preset'"),
        (["run", "--preset"], "--preset"),
        (["run", "--test-fraction", "1.5"], "test_fraction is 1.5, expected less than 1"),
        (["data", "check", "digits", "--test-fraction", "0"], "test_fraction is 0.0, expected a share between 0 and 1"),
        (["predict", ".", __file__, "--top", "0"], "top is 0, expected at least 1"),
        (["predict", "nowhere", __file__], "nowhere is no folder"),
        (["predict", ".", "nowhere.png"], "nowhere.png is no file"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [", "my.yaml is no valid YAML"),
        ("preset: 5\n", "my.yaml is 5, expected text or null"),
        ("\tlr: 1\n", "no valid YAML"),
    ],
)
def test_a_damaged_yaml_file_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(content)
    status, _, errors = mist("run", str(tmp_path / "my.yaml"))
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors


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


def test_flags_come_after_the_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("tuner: [none]\nmethod: [simplecil]\nseeds: [5, 6]\nclasses_per_task: 2\n")
    out = tmp_path / "out"
    status, output, errors = mist("run", str(tmp_path / "my.yaml"), "--seeds", "7", "--lr", "0.003", "--out", str(out))
    assert status == 0, errors
    assert "--lr changes nothing in this run: it is used by mist, random, magnitude and gradient, not by none" in output
    result = json.loads((out / "digits-none-simplecil" / "results.json").read_text())
    assert [run["seed"] for run in result["runs"]] == [7]
    assert len(result["runs"][0]["tasks"]) == 5


def test_a_experiment_can_be_repeated_from_its_configuration(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("form", ["text", "csv"])
def test_report_goes_on_without_a_folder_that_has_no_results(form: str, tmp_path: Path) -> None:
    task = {"classes": [0, 1], "accuracy_seen": 90.0, "accuracy_per_task": [90.0]}
    parts = ("data", "backbone", "tuner", "method")
    content = {
        "schema": 1,
        "config": {part: {"name": f"the_{part}"} for part in parts},
        "runs": [{"seed": 1, "tasks": [task]}],
        "summary": {},
    }
    for name in ("first", "last"):
        (tmp_path / name / "experiment").mkdir(parents=True)
        (tmp_path / name / "experiment" / "results.json").write_text(json.dumps(content))
    (tmp_path / "empty").mkdir()
    folders = [str(tmp_path / name) for name in ("first", "empty", "last")]
    status, output, errors = mist("report", *folders, "--format", form, "--out", str(tmp_path / "joint"))
    assert status == 0, errors
    assert f"mist: no results.json in {tmp_path / 'empty'}" in errors
    lines = [line for line in output.splitlines() if "the_tuner" in line]
    assert len(lines) >= 2
    assert (tmp_path / "joint" / "report.html").is_file()
    status, output, errors = mist("report", str(tmp_path / "empty"), "--format", form)
    assert (status, output) == (1, "")
    assert f"mist: no results.json in {tmp_path / 'empty'}" in errors


@pytest.mark.parametrize(("asked", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on(asked: signal.Signals, status: int, tmp_path: Path) -> None:
    process = start(
        "run", "--tuner", "mist", "--method", "simplecil", "--seeds", "1", "--epochs", "2", "--out", str(tmp_path)
    )
    result = tmp_path / "digits-mist-simplecil" / "results.json"
    deadline = time.monotonic() + 400
    while not result.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(asked)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "stopping after this step" in output
    assert f"go on with mist run --resume {tmp_path}" in errors
    assert "Traceback" not in errors
    assert len(json.loads(result.read_text())["runs"][0]["tasks"]) == 1
    assert mist("report", str(tmp_path))[0] == 0
    status, _, errors = mist("run", "--resume", str(tmp_path), "--lr", "0.1")
    assert status == 2
    assert "lr is 0.1, was 0.003" in errors
    status, _, errors = mist("run", "--resume", str(tmp_path), "--out", "elsewhere")
    assert status == 2
    assert "leave --out and --overwrite out" in errors
    status, output, errors = mist("run", "--resume", str(tmp_path))
    assert status == 0, errors
    assert "A_last" in output
    assert len(json.loads(result.read_text())["runs"][0]["tasks"]) == 2


def test_a_preset_lies_below_the_flags(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("preset: mist/cifar100\nepochs: 3\n")
    for arguments in (["--preset", "mist/cifar100", "--epochs", "3"], [str(tmp_path / "my.yaml")]):
        status, output, errors = mist("run", *arguments, "--keep", "0.2", "--print_config")
        assert status == 0, errors
        chosen = yaml.safe_load(output)
        assert (chosen["epochs"], chosen["keep"]) == (3, 0.2)
        assert (chosen["data"], chosen["dynamics"]) == ("cifar100", "published")
        assert chosen["method_options"] == ["ranpac.width=10000"]


def test_predict_names_what_is_on_an_image(tmp_path: Path) -> None:
    status, _, errors = mist("run", *SMALL, "--out", str(tmp_path / "run"))
    assert status == 0, errors
    source = data.load("digits")
    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"{i}.png"))
        source.test.read(i).save(paths[-1])
    status, output, errors = mist("predict", str(tmp_path / "run"), *paths, "--top", "2")
    assert status == 0, errors
    assert all(path in output for path in paths)
    names = [line.split()[0] for line in output.splitlines() if line.startswith(tuple("0123456789"))]
    assert len(names) == 6
    right = [str(int(source.test.labels[i])) for i in range(3)]
    assert sum(name == label for name, label in zip(names[::2], right, strict=True)) >= 2


def test_help_imports_no_torch() -> None:
    code = """
import sys
from mist_ext import cli
try:
    cli.main(["--help"])
finally:
    print("torch" in sys.modules, "matplotlib" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False False\n")
