"""Each command of `mist`: what it prints, what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hand_made import results, task_record

from mist_ext import data

Command = Callable[..., tuple[int, str, str]]

SMALL = ["--data", "digits", "--tuner", "none", "--method", "simplecil", "--seeds", "1"]


def test_info_names_versions_backend_and_devices(mist: Command) -> None:
    status, output, _ = mist("info")
    assert status == 0
    for name in ("mist_ext", "torch", "CPU kernels", "CUDA kernels loaded", "devices"):
        assert name in output


def test_help_explains_every_option(mist: Command) -> None:
    status, output, _ = mist("run", "--help")
    assert status == 0
    blocks = output.split("\noptions:")[1].replace("\n", " ").split("  --")[1:]
    assert len(blocks) > 50
    for block in blocks:
        explanation = block.split("  ", 1)[-1].strip()
        assert len(explanation) > 20, block


def test_flags_come_after_the_yaml_file(mist: Command, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "data: digits\ntuner: [none]\nmethod: [simplecil]\nseeds: [5, 6]\nclasses_per_task: 2\n"
    )
    out = tmp_path / "out"
    status, output, errors = mist("run", str(tmp_path / "my.yaml"), "--seeds", "7", "--lr", "0.003", "--out", str(out))
    assert status == 0, errors
    assert "lr changes nothing: it is used by mist, random, magnitude, gradient, published_random" in output
    result = json.loads((out / "digits-none-simplecil" / "results.json").read_text())
    assert [run["seed"] for run in result["runs"]] == [7]
    assert len(result["runs"][0]["tasks"]) == 5


def test_an_experiment_can_be_repeated_from_its_configuration(mist: Command, tmp_path: Path) -> None:
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


def test_report_rebuilds_tables_and_figures(mist: Command, tmp_path: Path, figures: None) -> None:
    mist("run", *SMALL, "--out", str(tmp_path / "run"))
    figure = tmp_path / "run" / "digits-none-simplecil" / "matrix.png"
    figure.unlink()
    status, output, errors = mist("report", str(tmp_path / "run"), "--out", str(tmp_path / "joint"))
    assert status == 0, errors
    assert "simplecil" in output
    assert figure.is_file()
    assert (tmp_path / "joint" / "summary.md").is_file()


@pytest.mark.parametrize("form", ["text", "csv"])
def test_report_goes_on_without_a_folder_that_has_no_results(mist: Command, form: str, tmp_path: Path) -> None:
    content = results({1: [task_record([0, 1], [90.0])]}, "the_tuner")
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


def test_a_preset_lies_below_the_flags(mist: Command, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("preset: mist/cifar100\nepochs: 3\n")
    for arguments in (["--preset", "mist/cifar100", "--epochs", "3"], [str(tmp_path / "my.yaml")]):
        status, output, errors = mist("run", *arguments, "--keep", "0.2", "--print_config")
        assert status == 0, errors
        chosen = yaml.safe_load(output)
        assert (chosen["epochs"], chosen["keep"]) == (3, 0.2)
        assert (chosen["data"], chosen["dynamics"]) == ("cifar100", "published")
        assert chosen["method_options"] == ["ranpac.width=10000"]


def test_an_option_that_changes_nothing_is_told_by_every_command(mist: Command, tmp_path: Path) -> None:
    status, output, _ = mist("data", "check", "digits", "--test-fraction", "0.3", "--data-root", str(tmp_path))
    assert status == 0
    assert output.startswith("remark: data_root changes nothing: it needs a data set that is looked for below data_r")
    assert "remark: test_fraction changes nothing: it needs data folder:PATH" in output
    (tmp_path / "results.json").write_text(json.dumps(results({1: [task_record([0, 1], [90.0])]}, "mist")))
    status, output, errors = mist("report", str(tmp_path), "--format", "csv", "--no-figures")
    assert (status, output.count("\n")) == (0, 2)
    assert errors == "mist: no_figures changes nothing: with --format csv files need --out\n"


def test_the_options_of_a_run_that_was_begun_are_printed(mist: Command, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{data: glyphs, epochs: 7}")
    status, output, errors = mist("run", "--resume", str(tmp_path), "--workers", "3", "--print-config")
    assert status == 0, errors
    chosen = yaml.safe_load(output)
    assert (chosen["data"], chosen["epochs"], chosen["workers"]) == ("glyphs", 7, 3)
    status, _, errors = mist("run", "--resume", str(tmp_path / "none"), "--print-config")
    assert (status, "no run was begun in" in errors) == (2, True)


def test_predict_names_what_is_on_an_image(mist: Command, tmp_path: Path) -> None:
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
