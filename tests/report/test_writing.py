"""Which files of a report are written: figures where they would change, and a place for what a run cannot take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mist_ext import cli
from mist_ext.report import digests, read_experiments, write_report, writing

Result = Callable[..., dict[str, Any]]


def write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(result: Result, tmp_path: Path) -> Path:
    """A run of two experiments, each with two tasks and no selection."""
    for tuner in ("none", "mist"):
        content = result(tuner, tasks=2, seeds=(1,))
        for task in content["runs"][0]["tasks"]:
            task |= {"selection": [], "accuracy_per_class": [None] * len(task["accuracy_per_class"])}
        write(tmp_path / "run" / f"digits-{tuner}-simplecil", content)
    return tmp_path / "run"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The experiments whose figures were drawn."""
    told: list[str] = []
    draw = writing.experiment_drawings

    def telling(experiment: Any) -> Any:
        told.append(experiment.tuner)
        return draw(experiment)

    monkeypatch.setattr(writing, "experiment_drawings", telling)
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_figures_that_are_up_to_date_are_not_drawn_again(run: Path, drawn: list[str]) -> None:
    files = write_report(read_experiments([run]), run)
    assert sorted(drawn) == ["mist", "none"]
    before, times = contents(run), {file: file.stat().st_mtime_ns for file in files}
    drawn.clear()
    assert write_report(read_experiments([run]), run) == files
    assert drawn == []
    assert contents(run) == before
    unwritten = [file for file, time in times.items() if file.stat().st_mtime_ns == time]
    assert {file.suffix for file in unwritten} == {".png", ".svg", ".html"}
    # A file that is gone is written again, and is what it was.
    (run / "digits-none-simplecil" / "matrix.png").unlink()
    write_report(read_experiments([run]), run)
    assert drawn == ["none"]
    assert contents(run) == before


@pytest.mark.slow
def test_figures_are_drawn_again_where_results_or_the_code_changed(
    run: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(read_experiments([run]), run)
    drawn.clear()
    file = run / "digits-mist-simplecil" / "results.json"
    content = json.loads(file.read_text())
    content["runs"][0]["tasks"][1]["accuracy_seen"] += 1
    before = contents(run)
    file.write_text(json.dumps(content))
    write_report(read_experiments([run]), run)
    changed = {name for name, old in before.items() if (run / name).read_bytes() != old}
    assert {name.split("/")[0] for name in changed if "/" in name} == {"digits-mist-simplecil"}
    assert {"report.html", "accuracy.svg", "digits-mist-simplecil/accuracy.png"} <= changed
    drawn.clear()
    monkeypatch.setattr(digests, "_code", lambda: b"another version")
    write_report(read_experiments([run]), run)
    assert sorted(drawn) == ["mist", "none"]


@pytest.mark.slow
def test_nothing_of_a_figure_on_the_disk_gets_onto_the_page(run: Path) -> None:
    write_report(read_experiments([run]), None)
    figure = run / "digits-mist-simplecil" / "matrix.svg"
    figure.write_text(figure.read_text().replace("</svg>", "<script>alert(1)</script></svg>"))
    write_report(read_experiments([run]), run)
    assert "alert(1)" not in (run / "report.html").read_text()


def test_a_report_without_figures(run: Path, drawn: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run), "--no-figures"]) == 0
    told = capsys.readouterr().out
    assert "A_last" in told
    assert f"Tables and report.html: {run}" in told
    assert drawn == []
    names = {file.name for file in run.rglob("*") if file.is_file()}
    assert names == {
        "results.json", "report.html", "summary.json", "summary.md", "summary.csv", "summary.tex",
    }  # fmt: skip
    assert "<svg" not in (run / "report.html").read_text()
    assert cli.main(["report", str(run)]) == 0  # which is another page
    assert "<svg" in (run / "report.html").read_text()


@pytest.fixture
def read_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, below a folder that nobody may write to: root may write everywhere, so the answer is made up."""
    access = os.access

    def answer(path: Any, mode: int) -> bool:
        return access(path, mode) and not (mode & os.W_OK and Path(path).is_relative_to(run))

    monkeypatch.setattr(os, "access", answer)
    return run


def test_a_run_that_cannot_be_written_is_reported_elsewhere(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(read_only)
    assert cli.main(["report", str(read_only), "--out", str(tmp_path / "mine")]) == 0
    told = capsys.readouterr().err.splitlines()
    assert contents(read_only) == before
    for tuner in ("none", "mist"):
        name = f"digits-{tuner}-simplecil"
        assert (
            f"mist: {read_only / name} cannot be written; its figures are in {tmp_path / 'mine' / 'run' / name}" in told
        )
        assert (tmp_path / "mine" / "run" / name / "matrix.png").is_file()
    assert "<svg" in (tmp_path / "mine" / "report.html").read_text()


def test_without_another_place_a_report_says_what_to_do(read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(read_only)
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(read_only)])
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert "A_last" in output
    assert "cannot be written there: no permission; give a folder of yours, --out" in errors
    with pytest.raises(SystemExit):
        cli.main(["report", str(read_only), "--no-figures"])
    assert "give a folder of yours: --out" in capsys.readouterr().err
    assert contents(read_only) == before
    assert cli.main(["report", str(read_only), "--format", "csv"]) == 0
