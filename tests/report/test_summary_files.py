"""The files that join all experiments, beside the numbers that they are made of."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import experiments_of_two_tuners, of_matrices

from mist_ext.report import as_text, parse_experiment, write_figures, write_summary


def test_a_run_without_any_finished_task_is_reported_and_draws_nothing(tmp_path: Path) -> None:
    result = of_matrices(finished=False, seeds=[1])
    result["runs"] = [{"seed": 1, "tasks": []}]
    experiment = parse_experiment(result, "")
    assert experiment.gaps
    assert "incomplete" in as_text([experiment], "markdown")
    assert write_figures(experiment, tmp_path) == []
    names = ["summary.json", "summary.md", "summary.csv", "summary.tex", "report.html"]
    assert [file.name for file in write_summary([experiment], tmp_path)] == names


def test_summary_files_agree_with_the_rows(tmp_path: Path) -> None:
    experiments = experiments_of_two_tuners()
    files = write_summary(experiments, tmp_path / "new" / "folder")
    assert [file.name for file in files] == [
        "summary.json", "summary.md", "summary.csv", "summary.tex", "accuracy.png", "accuracy.svg", "report.html",
    ]  # fmt: skip
    records = json.loads(files[0].read_text())["experiments"]
    assert [(record["method"], record["tuner"]) for record in records] == [
        ("ranpac", "none"), ("ranpac", "mist"), ("simplecil", "none"), ("simplecil", "mist"),
    ]  # fmt: skip
    assert records[1]["gain_over_none"] == pytest.approx({"mean": 6.5, "std": 7 / 2**0.5, "n": 2})
    assert records[0]["gain_over_none"] is None
    assert records[0]["accuracy_seen"][0] == pytest.approx({"mean": 92.0, "std": 8**0.5})

    markdown = files[1].read_text(encoding="utf-8").splitlines()
    lines = [line for line in markdown if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert "| ranpac | none | 86.00 ± 4.95 | 80.00 ± 7.07 |" in lines[2]

    with open(files[2], newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["tuner"] for line in table] == ["none", "mist", "none", "mist"]
    assert float(table[1]["gain_over_none_mean"]) == pytest.approx(6.5)
    assert table[0]["gain_over_none_mean"] == ""
    assert table[1]["seeds"] == "2 1 3"
    assert float(table[1]["tune_seconds"]) == 18.0


def test_no_experiments_are_no_summary(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no experiments"):
        write_summary([], tmp_path)


def test_the_report_imports_neither_matplotlib_nor_torch() -> None:
    code = "import sys, mist_ext.report; print(sorted({'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
