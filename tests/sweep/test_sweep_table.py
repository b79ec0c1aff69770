"""What is made of a sweep's results: rows, gains, tests of significance, the table's forms and the figure."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hand_made import results as made_by_hand
from hand_made import task_record
from msgspec import structs
from rich.console import Console

from mist_ext.report import Experiment, columns, parse_experiment
from mist_ext.report.renderers.latex import latex
from mist_ext.report.renderers.markdown import escape, markdown
from mist_ext.report.renderers.spreadsheet import csv_text
from mist_ext.report.renderers.terminal import Terminal
from mist_ext.report.sharing import Shared, Sharing, sharing
from mist_ext.report.table import DASH
from mist_ext.results.record import BackboneRecord
from mist_ext.sweep.figure import draw, numeric_axis
from mist_ext.sweep.grid import Grid, make_grid
from mist_ext.sweep.outcomes import make_outcomes
from mist_ext.sweep.significance import paired_p
from mist_ext.sweep.sweep_table import SweepTable
from mist_ext.system.names import printable


def experiments(point, last: dict[str, float]) -> list:
    """Finished experiments with given last accuracies by method."""
    made = []
    for method, value in last.items():
        tasks = [task_record([0], [90.0]), task_record([1], [value, value])]
        made.append(parse_experiment(made_by_hand({point.seed: tasks}, point.options.tuner[0], method), "made up"))
    return made


def texts(table: SweepTable) -> list[list[str]]:
    """Headings, then lines."""
    (only,) = table.tables.tables
    return [[column.name for column in only.columns], *([cell.text for cell in line.cells] for line in only.lines)]


def notes(table: SweepTable) -> list[str]:
    return [note.text for note in table.tables.notes]


NONE = {1: 80.0, 2: 81.0, 3: 82.5, 4: 79.0}
MIST = {1: 82.0, 2: 81.5, 3: 85.0, 4: 80.0}
SHARING = Sharing(Shared(8, 16, 40.0), Shared())


def made_up() -> tuple[Grid, list]:
    axes = {"tuner": ["none", "mist"], "rate": [0.05, 0.5], "seeds": [1, 2, 3, 4]}
    grid = make_grid({"fixed": {"data": "digits", "method": ["simplecil"]}, "axes": axes})
    results = []
    for point in grid.points:
        value = NONE[point.seed] if point.axes["tuner"] == "none" else MIST[point.seed]
        results.append((point, experiments(point, {"simplecil": value + (point.axes.get("rate") == 0.5)})))
    return grid, results


def test_p_is_that_of_a_paired_t_test_by_hand() -> None:
    from scipy import stats

    differences = [MIST[seed] - NONE[seed] for seed in NONE]
    mean = sum(differences) / 4
    error = math.sqrt(sum((value - mean) ** 2 for value in differences) / 3 / 4)
    expected = 2 * stats.t.sf(abs(mean / error), df=3)
    assert paired_p(MIST, NONE) == pytest.approx(expected, rel=1e-9)
    assert paired_p({**MIST, 9: 0.0}, NONE) == pytest.approx(expected, rel=1e-9)  # seed 9 has no pair


def test_too_few_seeds_or_no_spread_give_no_p() -> None:
    assert paired_p({1: 1.0, 2: 2.0}, {1: 0.0, 2: 0.5}) is None
    assert paired_p({1: 1.1, 2: 2.1, 3: 3.1}, {1: 1.0, 2: 2.0, 3: 3.0}) is None
    assert paired_p(MIST, {}) is None


def test_each_rate_is_compared_with_the_one_frozen_backbone() -> None:
    _, results = made_up()
    rows = make_outcomes(results)
    assert [row.axes for row in rows] == [
        {"data": "digits", "tuner": "none"},
        {"data": "digits", "tuner": "mist", "rate": 0.05},
        {"data": "digits", "tuner": "mist", "rate": 0.5},
    ]
    assert rows[0].gain is None
    assert rows[0].experiment.metric("last_accuracy") == (pytest.approx(80.625), pytest.approx(1.4930394))
    assert rows[1].gain == (pytest.approx(1.5), pytest.approx(0.9128709), 4)
    assert rows[2].gain is not None
    assert rows[2].gain.mean == pytest.approx(2.5)
    assert rows[1].p == paired_p(MIST, NONE)
    assert rows[1].experiment.metric("forgetting").mean == pytest.approx(90 - 82.125)


def test_seeds_with_other_classes_do_not_pair() -> None:
    _, results = made_up()
    point, (experiment,) = results[0]
    run = experiment.runs[0]
    tasks = [structs.replace(task, classes=classes) for task, classes in zip(run.tasks, ([1], [0]), strict=True)]
    other = structs.replace(experiment, runs=[structs.replace(run, tasks=tasks)])
    rows = make_outcomes([(point, [other]), *results[1:]])
    assert rows[1].gain is not None
    assert rows[1].gain.n == 3


def test_each_precision_is_compared_with_the_frozen_backbone_of_its_own() -> None:
    axes = {"tuner": ["none", "mist"], "precision": ["fp32", "bf16", "bf16-pure"], "seeds": [1]}
    grid = make_grid({"fixed": {"data": "digits", "method": ["simplecil"]}, "axes": axes})
    last = {("none", "bf16-pure"): 70.0, ("mist", "fp32"): 81.0, ("mist", "bf16"): 82.0, ("mist", "bf16-pure"): 73.0}
    results = [
        (point, experiments(point, {"simplecil": last.get((point.axes["tuner"], point.axes.get("precision")), 80.0)}))
        for point in grid.points
    ]
    assert [row.gain.mean for row in make_outcomes(results) if row.gain] == [1.0, 2.0, 3.0]


def test_presets_that_follow_from_their_tuner_are_compared_and_not_shown() -> None:
    names = ["mist/imagenet_r-simplecil", "mist/imagenet_r-simplecil-ablation-random"]
    grid = make_grid({"axes": {"preset": names, "seeds": [1, 2]}})
    last = {"none": 80.0, "mist": 82.0, "published_random": 81.0}
    results = [(point, experiments(point, {"simplecil": last[point.axes["tuner"]]})) for point in grid.points]
    outcomes = make_outcomes(results, grid.redundant)
    assert [outcome.gain and outcome.gain.mean for outcome in outcomes] == [None, 2.0, 1.0]
    table = SweepTable(grid, outcomes, {}, {}, SHARING)
    assert [line[:2] for line in texts(table)] == [["method", "tuner"], *(["simplecil", tuner] for tuner in last)]
    drawing = draw(grid, outcomes)
    assert drawing is not None
    assert [entry.get_text() for entry in drawing.figure.legends[0].get_texts()] == ["tuner", *last]


def test_every_form_of_the_table_has_the_same_numbers() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_outcomes(results), {"digits-mist-seed=9": "ValueError: no"}, {"torch": "2"}, SHARING)
    content = json.loads(table.json())
    assert (content["experiments"], content["runs"], content["tunings"], content["tuned_experiments"]) == (16, 12, 8, 8)
    assert content["rows"][1]["by_seed"]["last_accuracy"] == {str(seed): value for seed, value in MIST.items()}
    lines = list(csv.DictReader(io.StringIO(csv_text(table.tables))))
    assert [line["rate"] for line in lines] == ["", "0.05", "0.5"]
    for line, row in zip(lines, content["rows"], strict=True):
        assert float(line["last_accuracy_mean"]) == row["last_accuracy"]["mean"]
        assert line["p"] == ("" if row["p"] is None else repr(row["p"]))
    shown = markdown(table.tables)
    p = paired_p(MIST, NONE)
    assert p is not None
    assert (
        "| simplecil | mist | 0.05 | 86.06 ± 1.05 | 82.12 ± 2.10 | 86.06 ± 1.05 | 7.88 ± 2.10 | +1.50 ± 0.91 (4) "
        f"| {p:.3f} |"
    ) in shown
    assert "16 experiments of the grid from 12 runs: 8 tunings" in shown
    assert SHARING.sentence() in shown
    assert "failed: digits-mist-seed=9: ValueError: no" in shown
    paper = latex(table.tables)
    accuracies = r"86.06 $\pm$ 1.05 & 82.12 $\pm$ 2.10 & 86.06 $\pm$ 1.05 & 7.88 $\pm$ 2.10"
    assert rf"& mist & 0.05 & {accuracies} &" in paper
    assert f"& +1.50 $\\pm$ 0.91 (4) & {p:.3f} & -- \\\\" in paper


def diagnosed(experiment: Experiment, drift: float) -> Experiment:
    """An experiment with a diagnosis of both tasks, of which the first has no earlier features that could drift."""
    (run,) = experiment.runs
    found = BackboneRecord(None, 60.0, 95.0), BackboneRecord(drift, 64.0, 85.0)
    tasks = [structs.replace(task, backbone=backbone) for task, backbone in zip(run.tasks, found, strict=True)]
    return structs.replace(experiment, runs=[structs.replace(run, tasks=tasks)])


def test_every_form_of_the_table_has_the_diagnosis_where_there_is_one() -> None:
    grid, results = made_up()
    drifts = {1: 0.9, 2: 0.92, 3: 0.94, 4: 0.96}
    results = [
        (
            point,
            [
                diagnosed(experiment, drifts[point.seed]) if point.axes.get("rate") == 0.5 else experiment
                for experiment in experiments
            ],
        )
        for point, experiments in results
    ]
    table = SweepTable(grid, make_outcomes(results), {}, {}, SHARING)
    assert texts(table)[0][-3:] == ["drift", "letters", "plasticity"]
    assert texts(table)[2][-3:] == [DASH] * 3
    assert texts(table)[3][-3:] == ["0.9300 ± 0.0258", "64.00 ± 0.00", "90.00 ± 0.00"]
    assert "| drift | letters | plasticity |" in markdown(table.tables)
    assert "| 0.9300 ± 0.0258 | 64.00 ± 0.00 | 90.00 ± 0.00 |" in markdown(table.tables)
    assert columns.BACKBONE_LEGEND in markdown(table.tables)
    rows = json.loads(table.json())["rows"]
    assert rows[1]["drift"] is None
    assert rows[2]["drift"] == {"mean": pytest.approx(0.93), "std": pytest.approx(0.0258199)}
    assert rows[2]["by_seed"]["drift"] == {str(seed): drift for seed, drift in drifts.items()}
    lines = list(csv.DictReader(io.StringIO(csv_text(table.tables))))
    assert lines[1]["drift_mean"] == ""
    assert float(lines[2]["drift_mean"]) == rows[2]["drift"]["mean"]
    assert float(lines[2]["plasticity_mean"]) == 90.0


def test_a_sweep_without_a_diagnosis_does_not_speak_of_it() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_outcomes(results), {}, {}, SHARING)
    assert texts(table)[0][-1] == "changed %"
    assert not any("drift" in form for form in (markdown(table.tables), table.json(), csv_text(table.tables)))


@pytest.mark.parametrize(
    ("methods", "axes", "expected"),
    [
        (1, {"tuner": ["mist"], "seeds": [1, 2]}, "2 experiments of the grid from 2 runs: 2 tunings of a backbone."),
        (1, {"tuner": ["none"], "seeds": [1]}, "1 experiment of the grid from 1 run: 0 tunings of a backbone."),
        (1, {"tuner": ["none"], "rate": [0.1, 0.2], "seeds": [1]}, "0 tunings of a backbone: methods share"),
        (2, {"tuner": ["mist"], "seeds": [1]}, "1 tuning of a backbone instead of 2: methods share"),
    ],
)
def test_what_was_shared_is_told_where_something_was(methods: int, axes: dict, expected: str) -> None:
    grid = make_grid({"fixed": {"method": ["simplecil", "ranpac"][:methods]}, "axes": axes})
    assert expected in notes(SweepTable(grid, [], {}, {}, sharing([])))[0]


def test_a_seed_that_is_missing_is_named() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_outcomes(results[:-1]), {}, {}, sharing([]))
    assert "digits, mist, 0.5, simplecil: without seed 4" in notes(table)


def test_training_that_went_wrong_is_told_below_the_table() -> None:
    grid, results = made_up()
    for point, found in results:
        if point.axes.get("rate") == 0.5 and point.seed == 2:
            found[0].runs[0].tasks[1].warnings.append("loss_rose")
    table = SweepTable(grid, make_outcomes(results), {}, {}, sharing([]))
    told = "warning: digits, mist, 0.5, simplecil: a loss ended higher than it began in 1 of 8 tasks"
    assert [note for note in notes(table) if note.startswith("warning")] == [f"{told}; a lower learning rate may help"]
    assert escape(told) in markdown(table.tables)


def test_one_numeric_axis_is_drawn() -> None:
    grid, results = made_up()
    drawing = draw(grid, make_outcomes(results))
    assert drawing is not None
    assert "mist: 82.12 % at 0.05, 83.12 % at 0.5" in drawing.description
    assert "none: 80.62 %" in drawing.description
    (axes,) = drawing.figure.axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o")
    assert list(curve.get_xdata()) == [0.05, 0.5]
    assert list(curve.get_ydata()) == pytest.approx([82.125, 83.125])
    files = drawing.files()
    assert set(files) == {"sweep.png", "sweep.svg"}


def test_accuracies_over_tasks_are_drawn_where_no_axis_is_numeric() -> None:
    axes = {"tuner": ["none", "mist"], "drop": ["gradients", "updates"], "seeds": [1, 2]}
    grid = make_grid({"fixed": {"data": "digits", "method": ["simplecil"]}, "axes": axes})
    results = [(point, experiments(point, {"simplecil": 80.0 + point.seed})) for point in grid.points]
    drawing = draw(grid, make_outcomes(results))
    assert drawing is not None
    assert set(drawing.files()) == {"sweep.png", "sweep.svg"}
    names = [entry.get_text() for entry in drawing.figure.legends[0].get_texts()]
    assert names == ["tuner", "none", "mist, drop gradients", "mist, drop updates"]
    assert "after the last task" in drawing.description
    assert draw(grid, []) is None


def test_more_curves_than_colours_are_not_drawn() -> None:
    axes = {"tuner": ["mist"], "rate": [0.1, 0.2, 0.3], "keep": [0.1, 0.2], "seeds": [1]}
    grid = make_grid({"fixed": {"data": "digits", "method": ["simplecil"]}, "axes": axes})
    assert (
        draw(grid, make_outcomes([(point, experiments(point, {"simplecil": 80.0})) for point in grid.points])) is None
    )


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"rate": [0.1, 0.2], "seeds": [1, 2]}, "rate"),
        ({"rate": [0.1, 0.2], "keep": [0.1, 0.2]}, None),
        ({"rate": [0.1, 0.2], "dynamics": ["exact", "published"]}, "rate"),
        ({"compile": [True, False]}, None),
        ({"rate": [0.1], "keep": [0.1, 0.2]}, "keep"),
    ],
)
def test_which_axis_is_drawn(axes: dict, expected: str | None) -> None:
    assert numeric_axis(make_grid({"axes": axes})) == expected


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("with_diagnosis", [False, True])
def test_the_table_fits_its_terminal_and_shows_every_number(width: int, with_diagnosis: bool) -> None:
    grid, results = made_up()
    if with_diagnosis:
        results = [
            (point, [diagnosed(experiment, 0.9) for experiment in experiments]) for point, experiments in results
        ]
    table = SweepTable(grid, make_outcomes(results), {"digits-[/red]\x1b": "ValueError: [no] \x1b"}, {}, SHARING)
    file = io.StringIO()
    Console(file=file, width=width).print(Terminal(table.tables))
    shown = file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    headings, *lines = texts(table)
    assert all(number in shown for line in lines for number in line[headings.index("A_avg") :])
    assert all(heading in shown for heading in headings)
    assert r"failed: digits-[/red]\x1b: ValueError: [no] \x1b" in map(printable, notes(table))
    tables = sum(line.split()[:2] == ["method", "tuner"] for line in shown.splitlines())
    assert (tables == 1 + with_diagnosis) == (width == 200)


def test_folders_of_one_name_are_told_apart_by_their_paths() -> None:
    axes = {"data": ["folder:a/x", "folder:b/x"], "tuner": ["none"], "seeds": [1]}
    grid = make_grid({"fixed": {"method": ["simplecil"]}, "axes": axes})
    results = [(point, experiments(point, {"simplecil": 80.0})) for point in grid.points]
    table = SweepTable(grid, make_outcomes(results), {}, {}, SHARING)
    lines = list(csv.DictReader(io.StringIO(csv_text(table.tables))))
    assert [line["data"] for line in lines] == axes["data"]
    assert lines[0]["last_accuracy_mean"] == "80.0"
    assert draw(grid, make_outcomes(results)) is None  # where they could not be told apart


def test_names_in_a_table_are_no_markup_and_no_formulas() -> None:
    grid, results = made_up()
    rows = make_outcomes(results)
    names = ["x", "=a|b <i>", "=a|b <i>"]
    rows = [replace(row, axes={**row.axes, "whole": name}) for row, name in zip(rows, names, strict=True)]
    table = SweepTable(grid, rows, {}, {}, SHARING)
    assert r"| =a\|b &lt;i&gt; |" in markdown(table.tables)
    lines = list(csv.DictReader(io.StringIO(csv_text(table.tables))))
    assert [line["whole"] for line in lines] == ["x", "'=a|b <i>", "'=a|b <i>"]
    assert lines[0]["rate"] == ""
    assert [float(line["forgetting_mean"]) for line in lines] == [
        row["forgetting"]["mean"] for row in json.loads(table.json())["rows"]
    ]
