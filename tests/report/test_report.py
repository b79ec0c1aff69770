"""Reports of results written by hand: numbers, pairing, incomplete and damaged files, tables and figures."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mist_ext.report import (
    Experiment,
    ResultsError,
    parse_experiment,
    read_experiments,
    table,
    write_figures,
    write_summary,
)
from mist_ext.report.rows import make_rows

Matrix = Sequence[Sequence[float]]
FROZEN = {"score": None, "select": None, "tune": None, "learn": 0.5, "evaluate": 0.25}


def make_result(
    tuner: str = "none",
    method: str = "simplecil",
    matrices: dict[int, Matrix] | None = None,
    finished: bool = True,
    data: str = "digits",
    tuned: bool = False,
    **config: Any,
) -> dict[str, Any]:
    """A `results.json` from an accuracy matrix per seed; tasks have two classes and equal test parts."""
    runs = []
    for seed, matrix in (matrices or {1: [[90.0], [80.0, 70.0]]}).items():
        tasks = [
            {
                "classes": [2 * number, 2 * number + 1],
                "accuracy_seen": sum(row) / len(row),
                "accuracy_per_task": list(row),
                "seconds": {"score": 1.0, "select": 0.1, "tune": 9.0, "learn": 0.5, "evaluate": 0.25}
                if tuned
                else FROZEN,
                "selected_fraction": 0.05 if tuned else None,
                "kept_fraction": {"mean": 0.1, "max": 0.11} if tuned else None,
                "changed_fraction": {"mean": 0.005, "max": 0.0051 + 0.0001 * number} if tuned else None,
                "changed_fraction_all": {"mean": 0.0052, "max": 0.0053} if tuned else None,
                "peak_memory_bytes": None,
            }
            for number, row in enumerate(matrix)
        ]
        runs.append({"seed": seed, "tasks": tasks})
    parts = {"data": data, "backbone": "vit_nano", "tuner": tuner, "method": method}
    result = {
        "schema": 1,
        "config": {part: {"name": name} for part, name in parts.items()} | config,
        "runs": runs,
    }
    return result | ({"summary": {}} if finished else {})


def make_experiment(*args: Any, **options: Any) -> Experiment:
    return parse_experiment(make_result(*args, **options), "out/experiment/results.json")


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(result))
    return folder


def printed(experiments: Sequence[Experiment], width: int) -> str:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(experiments))
    return console.export_text()


def png_size(file: Path) -> tuple[int, int]:
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


TWO_SEEDS = {1: [[90.0], [80.0, 70.0]], 2: [[94.0], [90.0, 80.0]]}


def test_a_row_holds_means_and_sample_deviations_over_seeds() -> None:
    (row,) = make_rows([make_experiment(matrices=TWO_SEEDS)])
    assert row.average_accuracy == pytest.approx(((82.5 + 89.5) / 2, 7 / 2**0.5))
    assert row.last_accuracy == pytest.approx((80.0, 10 / 2**0.5))
    assert row.forgetting == pytest.approx((7.0, 6 / 2**0.5))
    assert row.seeds == [1, 2]


def test_costs_are_summed_over_tasks_and_averaged_over_seeds() -> None:
    (row,) = make_rows([make_experiment("mist", matrices=TWO_SEEDS, tuned=True)])
    assert row.seconds == pytest.approx(
        {"score": 2.0, "select": 0.2, "tune": 18.0, "learn": 1.0, "evaluate": 0.5, "total": 21.7}
    )
    assert row.fractions == pytest.approx({
        "selected": 0.05, "kept": 0.1, "changed": 0.005, "changed_max": 0.0052,
        "changed_all": 0.0052, "changed_all_max": 0.0053,
    })  # fmt: skip


def test_what_was_not_measured_is_none_not_zero() -> None:
    (row,) = make_rows([make_experiment()])
    assert row.seconds == {
        "score": None,
        "select": None,
        "tune": None,
        "learn": 1.0,
        "evaluate": 0.5,
        "total": 1.5,
    }
    assert set(row.fractions.values()) == {None}
    assert row.gain is None


def gain_of(tuned: Experiment, *others: Experiment) -> Any:
    return next(row.gain for row in make_rows([tuned, *others]) if row.experiment is tuned)


BETTER = {2: [[95.0], [92.0, 84.0]], 1: [[90.0], [90.0, 80.0]], 3: [[0.0], [0.0, 0.0]]}


def test_the_gain_is_paired_by_seed_with_the_frozen_experiment() -> None:
    # Seed 1: 85 - 75, seed 2: 88 - 85; seed 3 has no partner.
    gain = gain_of(make_experiment("mist", matrices=BETTER), make_experiment(matrices=TWO_SEEDS))
    assert gain == pytest.approx((6.5, 7 / 2**0.5, 2))


@pytest.mark.parametrize(
    "other",
    [
        {"data": "glyphs"},
        {"method": "ranpac"},
        {"backbone": {"name": "vit_base"}},
        {"tuner": "random"},
        {"matrices": {1: [[90.0], [80.0, 70.0], [1.0, 2.0, 3.0]]}},
        {"matrices": {9: [[90.0], [80.0, 70.0]]}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_experiments_of_another_setting_do_not_pair(other: dict[str, Any]) -> None:
    assert gain_of(make_experiment("mist"), make_experiment(**other)) is None


def test_a_seed_with_other_classes_in_its_tasks_does_not_pair() -> None:
    result = make_result()
    result["runs"][0]["tasks"][1]["classes"] = [3, 2, 7]
    assert gain_of(make_experiment("mist"), parse_experiment(result, "")) is None


def test_the_frozen_experiment_of_the_same_output_folder_comes_first(tmp_path: Path) -> None:
    for out, last in (("a", 10.0), ("b", 20.0)):
        write_result(tmp_path / out / "none", make_result(matrices={1: [[last]]}))
        write_result(tmp_path / out / "mist", make_result("mist", matrices={1: [[30.0]]}))
    rows = make_rows(read_experiments([tmp_path / "a", tmp_path / "b"]))
    assert {row.label: row.gain.mean for row in rows if row.gain} == {"mist (a)": 20.0, "mist (b)": 10.0}


def test_shorter_runs_are_named_and_left_out_of_the_means() -> None:
    experiment = make_experiment(matrices=TWO_SEEDS | {3: [[1.0]]}, finished=False)
    assert experiment.gaps == ["seed 3 has 1 of 2 tasks"]
    (row,) = make_rows([experiment])
    assert row.seeds == [1, 2]
    assert row.last_accuracy is not None
    assert row.last_accuracy.mean == pytest.approx(80.0)
    assert "digits, none, simplecil: incomplete, seed 3 has 1 of 2 tasks" in printed([experiment], 100)


def test_the_configuration_tells_of_seeds_and_tasks_that_are_missing_altogether() -> None:
    result = make_result(finished=False, seeds=[1, 2, 3])
    result["config"]["data"]["tasks"] = 5
    assert parse_experiment(result, "").gaps == ["seed 1 has 2 of 5 tasks", "seeds 2, 3 not begun"]


def test_a_missing_summary_alone_is_reported_as_an_interruption() -> None:
    assert make_experiment().gaps == []
    assert make_experiment(finished=False).gaps == ["the run was interrupted before its summary"]


def test_a_run_without_any_finished_task_is_reported_and_draws_nothing(tmp_path: Path) -> None:
    result = make_result(finished=False, seeds=[1])
    result["runs"] = [{"seed": 1, "tasks": []}]
    experiment = parse_experiment(result, "")
    assert experiment.gaps
    assert "incomplete" in printed([experiment], 100)
    assert write_figures(experiment, tmp_path) == []
    assert [file.name for file in write_summary([experiment], tmp_path)] == [
        "summary.json",
        "summary.md",
        "summary.csv",
        "summary.tex",
        "report.html",
    ]


def test_folders_of_experiments_and_of_outputs_are_read_once_each(tmp_path: Path) -> None:
    for name in ("none", "mist"):
        write_result(tmp_path / "out" / f"digits-{name}-simplecil", make_result(name))
    (tmp_path / "out" / "summary.json").write_text("{}")
    experiments = read_experiments([tmp_path / "out" / "digits-none-simplecil", str(tmp_path / "out")])
    assert [experiment.name for experiment in experiments] == ["digits-none-simplecil", "digits-mist-simplecil"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1, "conf', "is damaged: .*truncated"),
        ("\x00\x01", "is damaged: JSON is malformed"),
        ("[1, 2]", "holds no results of a run"),
        ('{"accuracy": 3}', "no entry 'schema'"),
        ('{"schema": 2}', "schema 2, this version reads schema 1"),
        ('{"schema": 1}', "another version of mist_ext: Object missing required field `config`"),
        ('{"schema": 1, "config": {"data": {}}}', r"missing required field `backbone` - at `\$\.config`"),
        (
            '{"schema": 1, "config": {"data": {}, "backbone": {}, "tuner": {}, "method": {}}}',
            r"data.name is None, expected str - at `\$\.config`",
        ),
        ('{"schema": 1, "runs": NaN}', "is damaged: it holds NaN, which is no number of JSON"),
        ('{"schema": 1, "runs": ' + "[" * 100_000, "is damaged: it is nested too deeply"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=message) as caught:
        read_experiments([tmp_path])
    assert str(tmp_path / "results.json") in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("accuracy_seen", "91", r"Expected `float`, got `str` - at `\$\.runs\[0\]\.tasks\[1\]\.accuracy_seen`"),
        ("accuracy_seen", True, "Expected `float`, got `bool`"),
        ("accuracy_seen", 1e308, r"Expected `float` <= 100\.0"),
        ("accuracy_per_task", [1.0], r"tasks\[1\]\.accuracy_per_task has 1 numbers, expected 2"),
        ("accuracy_per_task", [1.0, None], r"Expected `float`, got `null` - at .*accuracy_per_task\[1\]"),
        ("classes", 5, "Expected `array`, got `int` - at .*classes"),
        ("seconds", {"tune": 1e308}, r"Expected `float` <= 1e\+100"),
        ("a_later_version_s", 1, "another version of mist_ext: Object contains unknown field `a_later_version_s`"),
    ],
)
def test_a_damaged_task_is_named(entry: str, value: Any, message: str) -> None:
    result = make_result()
    result["runs"][0]["tasks"][1][entry] = value
    with pytest.raises(ResultsError, match=message):
        parse_experiment(result, "x")


def test_folders_without_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError, match=r"no results\.json in .*empty"):
        read_experiments([tmp_path / "empty"])
    with pytest.raises(ResultsError, match="absent is no folder"):
        read_experiments([tmp_path / "absent"])


def test_folders_without_results_do_not_keep_others_from_being_read(tmp_path: Path) -> None:
    write_result(tmp_path / "full" / "digits-none-simplecil", make_result())
    write_result(tmp_path / "nested" / "inner" / "digits-mist-simplecil", make_result("mist"))
    (tmp_path / "begun" / "digits-none-simplecil").mkdir(parents=True)
    (tmp_path / "begun" / "run.yaml").write_text("tuner: [none]")
    (tmp_path / "photos").mkdir()
    told: list[str] = []
    names = ("begun", "full", "photos", "nested")
    experiments = read_experiments([tmp_path / name for name in names], told.append)
    assert [experiment.name for experiment in experiments] == ["digits-none-simplecil"]
    begun, photos, nested = told
    assert f"{tmp_path / 'begun'}: a run was begun there and has finished no task yet" in begun
    assert f"mist run --resume {tmp_path / 'begun'}" in begun
    assert f"{tmp_path / 'photos'} nor in a folder directly below it: it is not of a run; give the folder" in photos
    assert f"but in {tmp_path / 'nested' / 'inner'}; give those folders" in nested


def experiments_of_two_tuners() -> list[Experiment]:
    frozen = [make_experiment(method=method, matrices=TWO_SEEDS) for method in ("simplecil", "ranpac")]
    tuned = [make_experiment("mist", method, BETTER, tuned=True) for method in ("simplecil", "ranpac")]
    return tuned + frozen


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_its_terminal_and_shows_every_number(width: int) -> None:
    text = printed(experiments_of_two_tuners(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.search(r"ranpac +none +86\.00 ± 4\.95 +80\.00 ± 7\.07 +7\.00 ± 4\.24 +– *\n", text)  # noqa: RUF001
    assert re.search(r"mist .* \+6\.50 ± 4\.95 \(2\)", text)
    assert re.search(r"mist +5\.00 +10\.00 +0\.50 +0\.52", text)
    assert re.search(r" 2\.00 +0\.20 +18\.0 +1\.00 +0\.50 +21\.7", text)


def test_a_single_seed_shows_no_deviation() -> None:
    text = printed([make_experiment()], 100)
    assert "2 tasks · 1 seed\n" in text
    assert re.search(r"none +82\.50 +75\.00 +10\.00 ", text)


def test_streams_that_cannot_be_compared_stand_in_tables_of_their_own() -> None:
    text = printed([make_experiment(), make_experiment(data="glyphs"), make_experiment(matrices={1: [[1.0]]})], 100)
    titles = re.findall(r"^\w+ · vit_nano · .*?$", text, flags=re.MULTILINE)
    assert titles == [
        "digits · vit_nano · 1 task · 1 seed",
        "digits · vit_nano · 2 tasks · 1 seed",
        "glyphs · vit_nano · 2 tasks · 1 seed",
    ]


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


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("tasks", [1, 2, 10, 30])
def test_figures_of_a_experiment_for_any_number_of_tasks_and_seeds(tmp_path: Path, tasks: int, seeds: int) -> None:
    matrix = [[100.0 - after - on for on in range(after + 1)] for after in range(tasks)]
    experiment = make_experiment("mist", matrices=dict.fromkeys(range(seeds), matrix))
    files = write_figures(experiment, tmp_path)
    kinds = ["accuracy", "matrix", "costs"]
    assert [file.name for file in files] == [f"{kind}.{ending}" for kind in kinds for ending in ("png", "svg")]
    for file in files[::2]:
        assert min(png_size(file)) > 300


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures that are drawn."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        if figure not in figures:  # which is saved in two formats
            figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_the_figures_show_the_means_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    write_figures(make_experiment(matrices=TWO_SEEDS), tmp_path)
    accuracy, matrix, _ = (figure.axes[0] for figure in figures)
    lines = [list(line.get_ydata()) for line in accuracy.get_lines()]
    assert lines == [[90.0, 75.0], [94.0, 85.0], [92.0, 80.0]]
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["1", "2"]
    assert "%" in accuracy.get_ylabel()
    assert {entry.get_position(): entry.get_text() for entry in matrix.texts} == {
        (0, 0): "92.0", (0, 1): "85.0", (1, 1): "75.0",
    }  # fmt: skip


def test_the_comparison_tells_tuners_by_colour_and_methods_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    write_summary([*experiments_of_two_tuners(), make_experiment(data="glyphs")], tmp_path)
    (figure,) = (figure for figure in figures if figure.legends)
    assert [axes.get_title().split(" ")[0] for axes in figure.axes] == ["digits", "glyphs"]
    lines = figure.axes[0].get_lines()
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == 4
    assert [len({look[part] for look in looks}) for part in range(3)] == [2, 2, 2]
    names = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert names == ["tuner", "none", "mist", " ", "method", "ranpac", "simplecil"]


def test_ten_experiments_in_one_figure(tmp_path: Path) -> None:
    tuners = ["none", "mist", "full", "random", "magnitude"]
    experiments = [make_experiment(tuner, method, TWO_SEEDS) for tuner in tuners for method in ("simplecil", "ranpac")]
    write_summary(experiments, tmp_path)
    assert min(png_size(tmp_path / "accuracy.png")) > 400


def test_the_report_imports_neither_matplotlib_nor_torch() -> None:
    code = "import sys, mist_ext.report; print(sorted({'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
