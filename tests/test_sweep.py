"""Sweeps as a user starts them: real processes on the smallest grids, and what is made of their results."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mist_ext import data
from mist_ext.config import Config, TuningOptions
from mist_ext.data.source import Images
from mist_ext.report import parse_cell, text
from mist_ext.report.cells import Cell
from mist_ext.report.sharing import Shared, Sharing, sharing
from mist_ext.sweep import pool, run
from mist_ext.sweep.figure import draw, numeric_axis
from mist_ext.sweep.grid import _UNUSED, Grid, Point, make_grid, read_grid
from mist_ext.sweep.rows import make_rows
from mist_ext.sweep.significance import LEAST, paired_p
from mist_ext.sweep.table import SweepTable
from mist_ext.tuners import create

ROOT = Path(__file__).parents[1]
SMALLEST = {"method": ["simplecil"], "classes_per_task": 5, "epochs": 2, "save": "none"}


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mist_ext", "sweep", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def sweep(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def written(folder: Path, axes: dict, **fixed) -> str:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"fixed": {**SMALLEST, **fixed}, "axes": axes}))
    return str(path)


def wait_for(condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(folder: Path) -> bool:
    """Whether a process works in a point's folder, which it locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# The processes


@pytest.mark.parametrize(
    ("share", "memory", "jobs", "status", "most"),
    [
        pytest.param(True, 1 << 60, 2, 0, 3, id="shared"),
        pytest.param(False, 1 << 60, 2, 0, 2, id="jobs are given"),
        pytest.param(True, 1 << 20, 2, 0, 2, id="no memory"),
        pytest.param(True, 1 << 60, 2, 1, 2, id="none succeeded"),
        pytest.param(True, 1 << 60, 5, 0, 5, id="many jobs"),
    ],
)
def test_the_last_runs_share_few_cores_where_there_is_memory(
    share: bool, memory: int, jobs: int, status: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(point: Point, folder: Path, environment: dict) -> subprocess.Popen:
        work = f"import sys, time; time.sleep({0.2 + 0.1 * point.seed}); sys.exit({status})"
        return subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE)

    monkeypatch.setattr(pool, "_start", start)
    monkeypatch.setattr(pool.memory, "available", lambda device: memory)
    points = make_grid({"axes": {"tuner": ["none"], "seeds": [1, 2, 3, 4, 5, 6, 7]}}).points
    for point in points:
        (tmp_path / point.name).mkdir()  # where a failed one says why
    at_work: list[int] = []
    ended = [one.point for one in pool.run_points(points, tmp_path, jobs, share, lambda message: None, at_work.append)]
    assert sorted(point.seed for point in ended) == [1, 2, 3, 4, 5, 6, 7]
    assert max(at_work) == most


# The grid


def test_tuners_and_seeds_are_split_and_methods_stay_together() -> None:
    grid = make_grid(
        {"fixed": {"method": ["simplecil", "ranpac"], "seeds": [1, 2]}, "axes": {"tuner": ["none", "mist"]}}
    )
    assert [(point.options.tuner, point.options.seeds) for point in grid.points] == [
        (["none"], [1]), (["none"], [2]), (["mist"], [1]), (["mist"], [2])
    ]  # fmt: skip
    assert all(point.options.method == ["simplecil", "ranpac"] for point in grid.points)
    assert (grid.cells, grid.tuned_cells, grid.tunings) == (8, 4, 2)


def test_an_axis_of_methods_is_one_run() -> None:
    first = make_grid({"axes": {"method": ["simplecil", "ranpac"], "seeds": [1]}})
    assert first == make_grid({"fixed": {"method": ["simplecil", "ranpac"]}, "axes": {"seeds": [1]}})
    assert first == make_grid({"axes": {"method": [["simplecil"], ["ranpac"]], "seeds": [1]}})


def test_a_frozen_backbone_is_shared_by_all_selection_rates_but_not_by_all_data() -> None:
    axes = {"data": ["digits", "glyphs"], "tuner": ["none", "mist"], "rate": [0.1, 0.2], "seeds": [1]}
    names = [point.name for point in make_grid({"axes": axes}).points]
    assert names == [
        "digits-none-seed=1", "digits-mist-rate=0.1-seed=1", "digits-mist-rate=0.2-seed=1",
        "glyphs-none-seed=1", "glyphs-mist-rate=0.1-seed=1", "glyphs-mist-rate=0.2-seed=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tuner", "axis", "count"),
    [
        ("none", "batch_size", 1), ("full", "batch_size", 2), ("full", "rate", 1), ("none", "ranpac_width", 2),
        ("full", "lr", 1), ("full", "full_lr", 2), ("bitfit", "full_lr", 1), ("bitfit", "bitfit_lr", 2),
        ("mist", "lr", 2), ("mist", "lora_rank", 1), ("mist", "score_objective", 2), ("random", "score_objective", 1),
        ("mist", "freeze_rate", 2), ("magnitude", "freeze_rate", 1), ("magnitude", "strike_factor", 2),
        ("gradient", "strike_factor", 1), ("none", "momentum", 1), ("none", "weight_decay", 1),
    ],
)  # fmt: skip
def test_runs_are_shared_where_a_tuner_does_not_use_the_option(tuner: str, axis: str, count: int) -> None:
    whole = axis in ("batch_size", "ranpac_width", "lora_rank")
    values = ["mi", "ce"] if axis == "score_objective" else [16, 32] if whole else [0.1, 0.2]
    assert len(make_grid({"axes": {"tuner": [tuner], axis: values, "seeds": [1]}}).points) == count


CHANGED = {"score_objective": "ce", "lora_layers": "fc", "whole": "qkv", "dynamics": "published", "in_backward": True}
CHANGED |= {"tune_objective": "ce", "epochs": 4, "batch_size": 5, "lora_rank": 2, "lora_alpha": 3}


@pytest.mark.parametrize("name", list(_UNUSED))
def test_what_a_tuner_is_said_not_to_use_changes_nothing(name: str, same_bits: Callable) -> None:
    if name == "lora":
        pytest.importorskip("peft")

    def tuned(options: dict) -> list[Tensor]:
        torch.manual_seed(0)
        backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
        pixels = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
        given = {"epochs": 2, "batch_size": 8, "rate": 0.3, "keep": 0.4, **options}
        if given.get("dynamics") == "published":
            given["in_backward"] = False
        tuner = create(name, backbone, TuningOptions(**given), 1)
        for _ in range(3):  # strikes and frozen entries count from the second task on
            tuner.tune(Images(pixels, torch.arange(12) % 3))
        return list(backbone.parameters())

    for option in _UNUSED[name]:
        assert hasattr(TuningOptions, option), option
    changed = {option: CHANGED.get(option, 0.5) for option in _UNUSED[name]}
    for ours, theirs in zip(tuned({}), tuned(changed), strict=True):
        assert same_bits(ours, theirs)


def test_names_stay_when_an_axis_grows() -> None:
    few = make_grid({"axes": {"rate": [0.1], "seeds": [1], "tuner": ["mist"]}})
    more = make_grid({"axes": {"tuner": ["none", "mist"], "seeds": [3, 1], "rate": [0.01, 0.1]}})
    assert {point.name for point in few.points} < {point.name for point in more.points}


def test_a_long_name_is_cut_and_stays_its_own(tmp_path: Path) -> None:
    many = [f"l2p.option_{number}={number}" for number in range(20)]
    values = [["epochs=1"], many, [*many, "epochs=2"], ["ö" * 119], ["ö" * 120]]
    axes = {"method_options": values, "tuner": ["none"], "seeds": [1]}
    names = [point.name for point in make_grid({"axes": axes}).points]
    assert names[0] == "digits-none-method_options=_epochs=1_-seed=1"
    assert len(set(names)) == 5
    for name in names:
        (tmp_path / name).mkdir()
        assert name.endswith("-seed=1")
    again = make_grid({"axes": {**axes, "method_options": values[::-1]}})
    assert [point.name for point in again.points] == names[::-1]


def test_options_that_go_together_stand_on_one_axis() -> None:
    grid = make_grid({
        "axes": {"data": ["digits", {"data": "glyphs", "projector_lr": 0.5}], "tuner": ["mist"], "seeds": [1]}
    })  # fmt: skip
    assert [(point.options.data, point.options.projector_lr) for point in grid.points] == [
        ("digits", 0.01),
        ("glyphs", 0.5),
    ]
    assert [point.axes for point in grid.points] == [{"data": name, "tuner": "mist"} for name in ("digits", "glyphs")]


def test_one_value_stands_for_a_list_of_one() -> None:
    plain = make_grid({"axes": {"method_options": ["epochs=1"], "seeds": [1]}})
    assert plain == make_grid({"axes": {"method_options": [["epochs=1"]], "seeds": [1]}})
    assert plain.points[0].options.method_options == ["epochs=1"]


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.type == "float"])
def test_no_number_may_be_nan(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is nan"):
        Config(**{name: math.nan}).check()


def test_a_preset_lies_below_the_grid() -> None:
    grid = make_grid({"fixed": {"preset": "mist/cub200", "epochs": 3}, "axes": {"rate": [0.2]}})
    options = grid.points[-1].options
    assert (options.data, options.tuner, options.seeds, options.epochs, options.rate) == (
        "cub200",
        ["mist"],
        [1],
        3,
        0.2,
    )


def test_the_first_seed_alone_keeps_classifiers() -> None:
    grid = make_grid({"axes": {"tuner": ["none", "mist"], "seeds": [4, 5]}})
    assert [(point.seed, point.options.save) for point in grid.points] == [(4, "first"), (5, "none")] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axes": {"rat": [0.1]}}, r"unknown option of the grid 'rat'; did you mean 'rate'"),
        (
            {"fixed": {"epcohs": 3}, "axes": {"rate": [0.1]}},
            "unknown option of the grid 'epcohs'; did you mean 'epochs'",
        ),
        ({"axis": {"rate": [0.1]}}, "unknown part of the grid 'axis'; did you mean 'axes'"),
        ({"rate": [0.1]}, "option 'rate' of the grid stands beside fixed and axes"),
        ({"axes": {"rate": 0.1}}, r"axes\.rate is 0\.1, expected a list"),
        ({"axes": {"rate": [0.1, "much"]}}, r"axes\.rate has 'much', expected float"),
        ({"axes": {"rate": [0.1, 1.5]}}, r"rate is 1\.5, expected at most 1 \(at tuner none, rate 1\.5"),
        ({"axes": {"rate": [0.1, 0.1]}}, r"axes\.rate has 0\.1 twice"),
        ({"axes": {"tuner": ["none", "mits"]}}, "unknown tuner 'mits'; did you mean 'mist'"),
        ({"axes": {"method": ["ranpack"]}}, "unknown method 'ranpack'; did you mean 'ranpac'"),
        ({"axes": {"data": ["digits", "glyhps"]}}, "unknown data set 'glyhps'; did you mean 'glyphs'"),
        ({"axes": {"dynamics": ["exact", "publshed"]}}, "did you mean 'published'"),
        ({"fixed": {"rate": 0.1}, "axes": {"rate": [0.1]}}, "rate is both fixed and on an axis"),
        ({"axes": {"rate": [0.1], "data": [{"data": "digits", "rate": 0.2}]}}, "rate is on two axes"),
        ({"axes": {"data": [{"rate": 0.2}]}}, "which sets no data"),
        ({"axes": {"out": ["a", "b"]}}, "out is no option of a grid"),
        ({"fixed": {"rate": 0.1}}, "has no axes"),
        ({"fixed": {"seeds": [1, 1]}, "axes": {"rate": [0.1]}}, r"fixed\.seeds has 1 twice; leave one out"),
        ({"axes": {"rate": [math.nan]}}, r"axes\.rate has nan, expected a finite number for rate"),
        (
            {"axes": {"rate": [{"rate": 0.05, "ranpac_width": 100}, {"rate": 0.1, "ranpac_width": 200}]}},
            r"axes\.rate of the grid ties ranpac_width to rate, which tuner 'none' does not use: .* axis of its own",
        ),
        (None, "expected fixed"),
    ],
)
def test_a_mistake_in_a_grid_is_named(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_grid(content)


# The README's table has five seeds, a curve as many as the t-test needs, and what is there to be timed has one.
LEAST_SEEDS = {"embedded": 5, "drop_rate": LEAST, "selection_rate": LEAST, "digits": 1}


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_repository_can_be_read(path: Path) -> None:
    grid = read_grid(path)
    assert len(grid.axes["seeds"]) >= LEAST_SEEDS[path.stem]
    assert "none" in grid.axes["tuner"]


# The table


def cells(point, last: dict[str, float]) -> list:
    """Finished cells with given last accuracies by method."""
    return [
        parse_cell(
            {
                "schema": 1,
                "config": {
                    "data": {"name": point.options.data, "tasks": 2},
                    "backbone": {"name": "vit_nano"},
                    "tuner": {"name": point.options.tuner[0]},
                    "method": {"name": method},
                },
                "runs": [
                    {
                        "seed": point.seed,
                        "tasks": [
                            {"classes": [0], "accuracy_seen": 90.0, "accuracy_per_task": [90.0]},
                            {"classes": [1], "accuracy_seen": value, "accuracy_per_task": [value, value]},
                        ],
                    }
                ],
                "summary": {},
            },
            "made up",
        )
        for method, value in last.items()
    ]


NONE = {1: 80.0, 2: 81.0, 3: 82.5, 4: 79.0}
MIST = {1: 82.0, 2: 81.5, 3: 85.0, 4: 80.0}
SHARING = Sharing(Shared(8, 16, 40.0), Shared())


def made_up() -> tuple[Grid, list]:
    axes = {"tuner": ["none", "mist"], "rate": [0.05, 0.5], "seeds": [1, 2, 3, 4]}
    grid = make_grid({"fixed": {"method": ["simplecil"]}, "axes": axes})
    results = []
    for point in grid.points:
        value = NONE[point.seed] if point.axes["tuner"] == "none" else MIST[point.seed]
        results.append((point, cells(point, {"simplecil": value + (point.axes.get("rate") == 0.5)})))
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
    rows = make_rows(results)
    assert [row.axes for row in rows] == [
        {"data": "digits", "tuner": "none"},
        {"data": "digits", "tuner": "mist", "rate": 0.05},
        {"data": "digits", "tuner": "mist", "rate": 0.5},
    ]
    assert rows[0].gain is None
    assert rows[0].spread("last_accuracy") == (pytest.approx(80.625), pytest.approx(1.4930394))
    assert rows[1].gain == (pytest.approx(1.5), pytest.approx(0.9128709), 4)
    assert rows[2].gain is not None
    assert rows[2].gain.mean == pytest.approx(2.5)
    assert rows[1].p == paired_p(MIST, NONE)
    assert rows[1].spread("forgetting")[0] == pytest.approx(90 - 82.125)


def test_seeds_with_other_classes_do_not_pair() -> None:
    _, results = made_up()
    point, (cell,) = results[0]
    run = replace(cell.runs[0], classes=((1,), (0,)))
    rows = make_rows([(point, [replace(cell, runs=[run])]), *results[1:]])
    assert rows[1].gain is not None
    assert rows[1].gain.n == 3


def test_every_form_of_the_table_has_the_same_numbers() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_rows(results), {"digits-mist-seed=9": "ValueError: no"}, {"torch": "2"}, SHARING)
    content = json.loads(table.json())
    assert (content["cells"], content["runs"], content["tunings"], content["tuned_cells"]) == (16, 12, 8, 8)
    assert content["rows"][1]["by_seed"]["last_accuracy"] == {str(seed): value for seed, value in MIST.items()}
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert [line["rate"] for line in lines] == ["", "0.05", "0.5"]
    for line, row in zip(lines, content["rows"], strict=True):
        assert float(line["last_accuracy_mean"]) == row["last_accuracy"]["mean"]
        assert line["p"] == ("" if row["p"] is None else repr(row["p"]))
    shown = table.markdown()
    p = paired_p(MIST, NONE)
    assert p is not None
    assert (
        f"| simplecil | mist | 0.05 | 86.06 ± 1.05 | 82.12 ± 2.10 | 7.88 ± 2.10 | +1.50 ± 0.91 (4) | {p:.3f} |" in shown
    )
    assert "16 cells of the grid from 12 runs: 8 tunings" in shown
    assert SHARING.sentence() in shown
    assert "failed: digits-mist-seed=9: ValueError: no" in shown


def diagnosed(cell: Cell, drift: float) -> Cell:
    """A cell with a diagnosis of both tasks, of which the first has no earlier features that could drift."""
    (run,) = cell.runs
    found = ({"letters": 60.0, "plasticity": 95.0}, {"drift": drift, "letters": 64.0, "plasticity": 85.0})
    tasks = [{**task, "backbone": backbone} for task, backbone in zip(run.tasks, found, strict=True)]
    return replace(cell, runs=[replace(run, tasks=tasks)])


def test_every_form_of_the_table_has_the_diagnosis_where_there_is_one() -> None:
    grid, results = made_up()
    drifts = {1: 0.9, 2: 0.92, 3: 0.94, 4: 0.96}
    results = [
        (point, [diagnosed(cell, drifts[point.seed]) if point.axes.get("rate") == 0.5 else cell for cell in cells])
        for point, cells in results
    ]
    table = SweepTable(grid, make_rows(results), {}, {}, SHARING)
    assert table.headings[-3:] == ["drift", "letters", "plasticity"]
    assert table.lines()[1][-3:] == [text.DASH] * 3
    assert table.lines()[2][-3:] == ["0.9300 ± 0.0258", "64.00 ± 0.00", "90.00 ± 0.00"]
    assert "| drift | letters | plasticity |" in table.markdown()
    assert "| 0.9300 ± 0.0258 | 64.00 ± 0.00 | 90.00 ± 0.00 |" in table.markdown()
    assert text.BACKBONE_LEGEND in table.markdown()
    rows = json.loads(table.json())["rows"]
    assert rows[1]["drift"] is None
    assert rows[2]["drift"] == {"mean": pytest.approx(0.93), "std": pytest.approx(0.0258199)}
    assert rows[2]["by_seed"]["drift"] == {str(seed): drift for seed, drift in drifts.items()}
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert lines[1]["drift_mean"] == ""
    assert float(lines[2]["drift_mean"]) == rows[2]["drift"]["mean"]
    assert float(lines[2]["plasticity_mean"]) == 90.0


def test_a_sweep_without_a_diagnosis_does_not_speak_of_it() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_rows(results), {}, {}, SHARING)
    assert table.headings[-1] == "changed %"
    assert not any("drift" in form for form in (table.markdown(), table.json(), table.csv()))


def test_a_seed_that_is_missing_is_named() -> None:
    grid, results = made_up()
    table = SweepTable(grid, make_rows(results[:-1]), {}, {}, sharing([]))
    assert "digits, mist, 0.5, simplecil: without seed 4" in table.notes()


def test_one_numeric_axis_is_drawn() -> None:
    grid, results = made_up()
    drawing = draw(grid, make_rows(results))
    assert drawing is not None
    assert "mist: 82.12 % at 0.05, 83.12 % at 0.5" in drawing.description
    assert "none: 80.62 %" in drawing.description
    (axes,) = drawing.figure.axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o")
    assert list(curve.get_xdata()) == [0.05, 0.5]
    assert list(curve.get_ydata()) == pytest.approx([82.125, 83.125])
    files = drawing.files()
    assert set(files) == {"sweep.png", "sweep.svg"}


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


# The command


def test_a_mistake_is_answered_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for axes, message in (
        ({"rat": [0.1]}, "did you mean 'rate'"),
        ({"backbone": ["vit_nano", "vit_nanno"], "seeds": [1]}, "did you mean 'vit_nano'"),
    ):
        status, output, errors = sweep(written(tmp_path, axes), "--out", str(out))
        assert status == 2
        assert message in errors
        assert "Traceback" not in errors
        assert output == ""
        assert not out.exists()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"tuner": ["gradient"], "dynamics": ["exact", "published"]}, "dynamics is 'published'"),
        ({"tuner": ["lora"], "lora_layers": ["qkv", "zzz"]}, "lora_layers is 'zzz', which matches the name of no"),
    ],
    ids=lambda value: value.get("tuner")[0] if isinstance(value, dict) else "",
)
def test_tuners_check_every_point_before_any_work(axes: dict, message: str, tmp_path: Path) -> None:
    if axes["tuner"] == ["lora"]:
        pytest.importorskip("peft")
    out = tmp_path / "out"
    grid = written(tmp_path, {**axes, "seeds": [1, 2]})
    with pytest.raises(ValueError, match=message):
        run.sweep(grid, out, console=Console(file=io.StringIO()))
    assert not out.exists()


def test_data_is_loaded_once_for_all_ways_to_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda name, *rest: loaded.append(name) or load(name, *rest))
    axes = {"tuner": ["mist"], "data": ["digits", "glyphs"], "rate": [0.1, 0.2], "epochs": [2, 3], "seeds": [1, 2]}
    run._check_points(make_grid({"fixed": {"method": ["simplecil"]}, "axes": axes}).points, Console(file=io.StringIO()))
    assert loaded == ["digits", "glyphs"]


def test_a_sweep_goes_on_after_a_signal_and_after_a_kill_and_ends_in_one_table(tmp_path: Path) -> None:
    grid = written(tmp_path, {"tuner": ["mist", "none"], "seeds": [1]})
    out = tmp_path / "out"
    results = out / "digits-mist-seed=1" / "digits-mist-simplecil" / "results.json"

    process = start(grid, "--out", str(out), "--jobs", "1")
    wait_for(results.is_file)  # its first task is done
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "running points save their state" in output
    assert "go on with the same command and --resume" in errors
    assert list((out / "digits-mist-seed=1" / "checkpoint").iterdir())
    first_task = json.loads(results.read_text())["runs"][0]["tasks"][0]

    status, _, errors = sweep(grid, "--out", str(out))
    assert status == 2
    assert "already used" in errors
    status, _, errors = sweep(
        written(tmp_path, {"tuner": ["mist", "none"], "seeds": [1]}, lr=0.1), "--out", str(out), "--resume"
    )
    assert status == 2
    assert "lr is 0.1, was 0.003" in errors

    grid = written(tmp_path, {"tuner": ["mist", "none"], "seeds": [1]})
    process = start(grid, "--out", str(out), "--jobs", "1", "--resume")
    wait_for(lambda: is_running(results.parents[1]))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not is_running(results.parents[1]), 60)  # the run noticed, and stopped as if it had been asked
    assert "summary" not in json.loads(results.read_text())

    status, output, errors = sweep(grid, "--out", str(out), "--resume")
    assert status == 0, errors
    assert json.loads(results.read_text())["runs"][0]["tasks"][0] == first_task  # not done again
    assert (out / "digits-mist-seed=1" / "output.txt").read_text().count("seed 1 mist task 1/2:") == 1
    content = json.loads((out / "sweep.json").read_text())
    assert [(row["axes"]["tuner"], row["seeds"]) for row in content["rows"]] == [("mist", [1]), ("none", [1])]
    assert content["rows"][0]["gain_over_none"]["n"] == 1
    assert (out / "sweep.md").is_file()
    assert "2 cells of the grid from 2 runs: 1 tuning" in output


def test_a_point_that_fails_stops_no_other_and_is_repeated(tmp_path: Path) -> None:
    axes = {"tuner": ["none", "mist"], "lr": [1e30], "seeds": [1]}  # which makes no finite features
    grid, out = written(tmp_path, axes), tmp_path / "out"
    for arguments in ([], ["--resume"]):
        status, output, errors = sweep(grid, "--out", str(out), *arguments)
        assert status == 1, errors
        failed = out / "digits-mist-lr=1e+30-seed=1"
        error = (failed / "error.txt").read_text()
        assert "Traceback" in error
        first = error.splitlines()[0]
        assert "not finite" in first or "NaN" in first
        assert f"failed: {failed.name}: {first}" in output
        content = json.loads((out / "sweep.json").read_text())
        assert [row["axes"]["tuner"] for row in content["rows"]] == ["none"]
        assert list(content["failures"]) == [failed.name]
    assert "1 of them finished" in output
