"""The joint table in every form: published expectations, LaTeX, and what is printed for pasting."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mist_ext import cli
from mist_ext.report import Experiment, ResultsError, as_text, parse_experiment, table, write_summary
from mist_ext.report.table import DASH
from mist_ext.system.costs import PHASES

Result = Callable[..., dict[str, Any]]
EXPECTED = {"average_accuracy": 87.57, "last_accuracy": 81.26, "source": "EASE repository, table 2"}


@pytest.fixture
def experiments(result: Result) -> list[Experiment]:
    """A frozen experiment without an expectation and a tuned one with it."""
    return [
        parse_experiment(result("none"), "a/none/results.json"),
        parse_experiment(result(expected=EXPECTED), "a/mist/r.json"),
    ]


def printed(experiments: list[Experiment], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(experiments))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 100])
def test_a_published_value_stands_beside_the_obtained_one(experiments: list[Experiment], width: int) -> None:
    text = printed(experiments, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.search(r"mist +\d\d\.\d\d ± \d\.\d\d +87\.57 +\d\d\.\d\d ± \d\.\d\d +81\.26", text)
    assert re.search(r"none +\d\d\.\d\d ± \d\.\d\d +– +\d\d\.\d\d ± \d\.\d\d +–", text)  # noqa: RUF001
    assert "gain over none" in text
    assert "EASE repository, table 2 (digits, mist, simplecil)" in " ".join(text.split())


def test_the_row_says_what_of_a_preset_was_changed(result: Result, tmp_path: Path) -> None:
    changed = {name: f"{number} (preset: 0)" for number, name in enumerate(("lr", "rate", "keep", "epochs"), 1)}
    one = parse_experiment(result(preset="mist/cub200", changed={"lr": changed["lr"]}), "a/mist/r.json")
    all_four = parse_experiment(result("none", preset="mist/cub200", changed=changed), "a/none/r.json")
    text = " ".join(printed([one, all_four], 100).split())
    assert "mist (changed: lr)" in text
    assert "none (changed: lr, rate, keep and 1 more)" in text
    assert "digits, mist, simplecil: preset mist/cub200, changed: lr 1 (preset: 0)" in text
    assert "changed: lr 1 (preset: 0), rate 2 (preset: 0), keep 3 (preset: 0), epochs 4 (preset: 0)" in text
    assert "mist (changed: lr)" in as_text([one], "markdown")
    write_summary([one, all_four], tmp_path)
    records = json.loads((tmp_path / "summary.json").read_text())["experiments"]
    assert [record["changed"] for record in records] == [changed, {"lr": changed["lr"]}]
    rows = list(csv.DictReader(io.StringIO(as_text([one], "csv"))))
    assert [(row["tuner"], row["changed"]) for row in rows] == [("mist", "lr 1 (preset: 0)")]


def test_without_an_expectation_there_is_no_column_for_it(result: Result) -> None:
    experiment = parse_experiment(result(), "")
    for form in ("markdown", "latex"):
        assert "published" not in as_text([experiment], form)
    assert "published" not in printed([experiment], 100)


def test_every_form_has_the_expectation(experiments: list[Experiment], tmp_path: Path) -> None:
    lines = as_text(experiments, "markdown").splitlines()
    heading = next(line for line in lines if line.startswith("| method"))
    assert [name.strip() for name in heading.split("|")[3:7]] == [
        "A_avg",
        "A_avg published",
        "A_last",
        "A_last published",
    ]
    line = next(line for line in lines if "| mist |" in line).split("|")
    assert [line[4].strip(), line[6].strip()] == ["87.57", "81.26"]
    row = next(row for row in csv.DictReader(io.StringIO(as_text(experiments, "csv"))) if row["tuner"] == "mist")
    assert [row[f"expected_{name}"] for name in EXPECTED] == ["87.57", "81.26", EXPECTED["source"]]
    write_summary(experiments, tmp_path)
    records = json.loads((tmp_path / "summary.json").read_text())["experiments"]
    assert [record["expected"] for record in records] == [None, EXPECTED]
    assert " & 87.57 & " in as_text(experiments, "latex")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ([87.57], r"Expected `object`, got `array` - at `\$\.config\.expected`"),
        ({"last_accuracy": 81.26}, r"missing required field `source` - at `\$\.config\.expected`"),
        ({"last_accuracy": "81.26", "source": "a table"}, "Expected `float . null`, got `str` - at .*last_accuracy"),
    ],
)
def test_an_expectation_without_source_or_number_is_refused(result: Result, expected: Any, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        parse_experiment(result(expected=expected), "x")


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("accuracy_per_class", [1.0], r"tasks\[1\]\.accuracy_per_class has 1 numbers, expected 4"),
        ("accuracy_per_class", [1.0, 2.0, 3.0, "4"], r"got `str` - at .*accuracy_per_class\[3\]"),
        ("seconds", {"tune": "long"}, r"got `str` - at .*seconds"),
        ("peak_memory_bytes", "1 GB", r"Expected `object`, got `str` - at .*peak_memory_bytes"),
        (
            "peak_memory_bytes",
            {"tune": "1 GB"},
            r"Expected `float . null`, got `str` - at .*peak_memory_bytes",
        ),
        ("selection", {"name": "a"}, r"Expected `array`, got `object` - at .*selection"),
        (
            "selection",
            [{"name": "a", "entries": 4, "selected": 5}],
            r"5 of 4 entries are selected - at .*selection\[0\]",
        ),
        (
            "selection",
            [{"name": "a", "entries": 4, "selected": 1, "score_share": "a lot"}],
            r"got `str` - at .*selection\[0\]\.score_share",
        ),
    ],
)
def test_a_damaged_entry_is_named(result: Result, entry: str, value: Any, message: str) -> None:
    content = result()
    content["runs"][0]["tasks"][1][entry] = value
    with pytest.raises(ResultsError, match=message):
        parse_experiment(content, "x")


def test_peak_memory_stands_beside_the_seconds_in_every_form(result: Result, tmp_path: Path) -> None:
    experiment = parse_experiment(result(), "out/experiment/results.json")
    by_phase = {"score": 2 << 30, "select": None, "tune": 3 << 30, "learn": 1 << 30, "evaluate": None}
    expected = {**by_phase, "whole": 3 << 30}
    write_summary([experiment], tmp_path)
    (record,) = json.loads((tmp_path / "summary.json").read_text())["experiments"]
    assert record["peak_memory_bytes"] == expected
    (row,) = csv.DictReader(io.StringIO(as_text([experiment], "csv")))
    given = {phase: row[f"{phase}_peak_memory_bytes"] for phase in expected}
    assert {phase: float(peak) if peak else None for phase, peak in given.items()} == expected
    shown = [DASH if peak is None else f"{peak >> 20:,}" for peak in expected.values()]
    lines = as_text([experiment], "markdown").splitlines()
    headings, numbers = ([part.strip() for part in line.split("|")] for line in (lines[2], lines[4]))
    assert headings[-7:-1] == [f"{phase} MiB" for phase in expected]
    assert numbers[-7:-1] == shown
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Peak memory, MiB" in page
    assert all(number in page for number in shown)
    for width in (80, 120):
        assert re.search(" +".join(["simplecil +mist", *shown]), printed([experiment], width))


def test_without_any_memory_there_is_no_table_of_it(result: Result) -> None:
    content = result()
    for run in content["runs"]:
        for task in run["tasks"]:
            task["peak_memory_bytes"] = dict.fromkeys(PHASES)
    experiment = parse_experiment(content, "out/experiment/results.json")
    assert "MiB" not in printed([experiment], 120)
    assert "MiB" not in as_text([experiment], "markdown")


def latex_lines(experiments: list[Experiment]) -> list[list[str]]:
    return [
        [field.strip() for field in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
        for line in as_text(experiments, "latex").splitlines()
        if line.endswith(r"\\")
    ]


def test_latex_has_a_line_per_experiment_with_as_many_fields_as_columns(experiments: list[Experiment]) -> None:
    text = as_text(experiments, "latex")
    assert all(rf"$A_\mathrm{{{name}}}$ & " in text for name in ("avg", "last", "tt"))
    columns = re.search(r"\\begin{tabular}{(\w+)}", text)
    assert columns
    lines = latex_lines(experiments)
    assert [len(line) for line in lines] == [len(columns[1])] * 3
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{", r"\end{")] == [
        1,
        1,
        1,
        2,
        2,
    ]


def test_latex_sets_the_best_of_each_method_and_column_bold(result: Result) -> None:
    def content(tuner: str, method: str, last: float) -> Experiment:
        made = result(tuner, method, tasks=2, seeds=(1,))
        task = made["runs"][0]["tasks"][1]
        made["runs"][0]["tasks"][1] = task | {"accuracy_seen": last, "accuracy_per_task": [last, last]}
        return parse_experiment(made, "")

    values = {
        ("none", "ranpac"): 60.0,
        ("mist", "ranpac"): 70.0,
        ("none", "simplecil"): 50.0,
        ("mist", "simplecil"): 40.0,
    }
    experiments = [content(tuner, method, last) for (tuner, method), last in values.items()]
    _, *lines = latex_lines(experiments)
    bold = {(tuner, column) for _, tuner, *rest in lines[:2] for column, field in enumerate(rest) if "textbf" in field}
    assert bold == {("mist", column) for column in range(4)}
    bold = {(tuner, column) for _, tuner, *rest in lines[2:] for column, field in enumerate(rest) if "textbf" in field}
    assert bold == {("none", column) for column in range(4)}


def test_nothing_is_bold_where_there_is_nothing_to_compare(result: Result) -> None:
    assert "textbf{" not in as_text([parse_experiment(result(), "")], "latex").replace("textbackslash", "")


def test_latex_takes_every_character_of_a_name_as_text(result: Result) -> None:
    content = result()
    content["config"]["data"]["name"] = "50%_of \\input{x} & #1 $y$ ~^\nnext"
    text = as_text([parse_experiment(content, "")], "latex")
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    for written in (
        r"50\%\_of",
        r"\textbackslash{}input\{x\}",
        r"\& \#1 \$y\$",
        r"\textasciitilde{}\textasciicircum{}\textbackslash{}nnext",
    ):
        assert written in caption


@pytest.mark.parametrize("form", ["markdown", "csv", "latex"])
def test_a_form_is_all_that_is_printed_and_nothing_is_written(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    folder = tmp_path / "out" / "experiment"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(result()))
    assert cli.main(["report", str(tmp_path / "out"), "--format", form]) == 0
    assert capsys.readouterr().out == as_text([parse_experiment(result(), str(folder / "results.json"))], form)
    assert [file.name for file in tmp_path.rglob("*.*")] == ["results.json"]


def test_a_report_of_several_folders_is_written_where_it_is_asked_for(result: Result, tmp_path: Path) -> None:
    for name in ("none", "mist"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(result(name)))
    assert cli.main(["report", str(tmp_path / "none"), str(tmp_path / "mist"), "--out", str(tmp_path / "joint")]) == 0
    joint = {file.name for file in (tmp_path / "joint").iterdir()}
    assert joint == {
        "summary.json", "summary.md", "summary.csv", "summary.tex", "accuracy.png", "accuracy.svg", "report.html",
    }  # fmt: skip
    figures = {file.stem for file in (tmp_path / "mist").glob("*.svg")}
    assert figures == {"accuracy", "matrix", "forgetting", "selection", "costs"}
    assert figures == {file.stem for file in (tmp_path / "mist").glob("*.png")}
    assert (tmp_path / "none" / "forgetting.svg").exists()
    assert not (tmp_path / "none" / "selection.svg").exists()
