"""A sweep that is spread over machines: its parts, and their folders joined again."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hand_made import results, task_record
from rich.console import Console

from mist_ext.cli import main
from mist_ext.sweep import Part, joining
from mist_ext.sweep.grid import make_grid
from mist_ext.sweep.point import Point
from mist_ext.sweep.run import prepared, sweep

CONTENT = {
    "fixed": {"data": "digits", "method": ["simplecil"], "classes_per_task": 5, "epochs": 2},
    "axes": {"tuner": ["none", "mist"], "rate": [0.05, 0.5], "seeds": [1, 2, 3]},
}
GRID = make_grid(CONTENT)
FORMS = ("sweep.json", "sweep.csv", "sweep.md", "sweep.tex", "sweep.png", "sweep.svg", "report.html")


def grid_file(folder: Path, content: dict = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.yaml").write_text(yaml.safe_dump(content))
    return folder / "grid.yaml"


def finish(folder: Path, point: Point) -> None:
    """Leave what a finished run would: results whose accuracies tell tuner, method and seed."""
    (tuner,) = point.options.tuner
    for number, method in enumerate(point.options.method):
        last = 70.0 + 3 * number + point.seed * point.axes.get("rate", 0)
        tasks = [task_record([0], [90.0]), task_record([1], [last, last])]
        found = results({point.seed: tasks}, tuner, method)
        found["summary"] = {
            name: {"mean": value, "std": 0.0}
            for name, value in (
                ("average_accuracy", (90 + last) / 2),
                ("last_accuracy", last),
                ("forgetting", 90 - last),
            )
        }
        own = folder / point.name / f"digits-{tuner}-{method}"
        own.mkdir(parents=True)
        (own / "results.json").write_text(json.dumps(found))


def sweep_folder(folder: Path, points: list[Point], content: dict = CONTENT) -> Path:
    grid_file(folder, content)
    for point in points:
        finish(folder, point)
    return folder


@pytest.mark.parametrize("of", [1, 2, 3, 7, 9, 12])
def test_parts_are_disjoint_alike_and_together_everything(of: int) -> None:
    parts = [Part(number, of).points(GRID) for number in range(1, of + 1)]
    together = [point.name for part in parts for point in part]
    assert sorted(together) == sorted(point.name for point in GRID.points)
    for tunes in (True, False):
        counts = [sum(point.tunes == tunes for point in part) for part in parts]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "a/b", "2", "2/", "1/0", "-1/8", "1/8/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected NUMBER/PARTS with a number from 1 to PARTS, such as 2/8"):
        Part.parse(text)
    assert Part.parse("2/8") == (2, 8)


def test_more_parts_than_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"part is 16/16, but .* has 9 runs alone; take fewer parts"):
        prepared(grid_file(tmp_path), tmp_path / "out", None, False, Part(16, 16), None)


def test_another_part_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    first, second = (Part(number, 3).points(GRID) for number in (1, 2))
    out = sweep_folder(tmp_path / "out", first)
    with pytest.raises(FileExistsError, match="already used"):
        prepared(out / "grid.yaml", out, None, False, Part(2, 3), None)
    for point in first:
        (out / point.name / "manifest.json").write_text(json.dumps({"mist_ext": "0", "files": []}))
    planned = prepared(out / "grid.yaml", out, None, True, Part(2, 3), None)
    assert {point.name for point in planned.points} == {point.name for point in (*first, *second)}


def test_joined_parts_are_the_undivided_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = sweep_folder(tmp_path / "whole", GRID.points)
    parts = [sweep_folder(tmp_path / f"part-{n}", Part(n, 4).points(GRID)) for n in range(1, 5)]
    joint = tmp_path / "joint"
    assert main(["report", str(whole)]) == 0
    undivided = capsys.readouterr().out.replace(str(whole), "OUT")
    assert main(["report", *map(str, parts), "--out", str(joint)]) == 0
    assert capsys.readouterr().out.replace(str(joint), "OUT") == undivided
    for name in FORMS:
        assert (joint / name).read_bytes() == (whole / name).read_bytes(), name
    rows = json.loads((joint / "sweep.json").read_text())["rows"]
    assert all(row["seeds"] == [1, 2, 3] for row in rows)
    assert Counter(row["axes"]["tuner"] for row in rows) == {"none": 1, "mist": 2}
    assert [row["gain_over_none"]["n"] for row in rows if row["axes"]["tuner"] == "mist"] == [3] * 2
    page = (joint / "report.html").read_text()
    assert all(f'href="#{anchor}"' in page and f'id="{anchor}"' in page for anchor in ("experiment-1", "experiment-3"))


def test_a_sweep_is_printed_for_a_paper_and_writes_nothing_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sweep_folder(tmp_path / "whole", GRID.points)
    assert main(["report", str(whole), "--format", "latex"]) == 0
    assert r"\begin{tabular}" in capsys.readouterr().out
    assert not (whole / "sweep.tex").exists()


def test_what_is_missing_and_what_failed_is_named(tmp_path: Path) -> None:
    failed, missing, *done = GRID.points
    folder = sweep_folder(tmp_path / "part", done)
    (folder / failed.name).mkdir()
    (folder / failed.name / "error.txt").write_text("Diverged: no\n\nTraceback")
    table = joining.join([str(folder)])
    assert table.failures == {failed.name: "Diverged: no"}
    told = [note.text for note in table.tables.notes if note.warning]
    assert f"not finished: 1 of 9 runs, {missing.name}" in told
    assert f"failed: {failed.name}: Diverged: no" in told
    assert "digits, none, simplecil: without seed 1, 2" in told


def test_a_part_says_what_it_is_and_misses_no_seed_of_another(tmp_path: Path) -> None:
    part = Part(1, 3).points(GRID)
    grid = prepared(grid_file(tmp_path), tmp_path / "out", None, False, Part(1, 3), None)
    folder = sweep_folder(tmp_path / "part", part)
    found = {point.name: joining.experiments(folder, point) for point in part}
    told = [note.text for note in joining.make_table(grid, found, {}).tables.notes]
    assert "4 experiments of the grid from 3 runs: 2 tunings of a backbone" in told[0]
    assert "a part of a sweep of 9 runs: mist report joins" in told[1]
    assert not any("without seed" in text for text in told)


@pytest.mark.parametrize("change", ["options", "points", "runs", "nothing"])
def test_what_does_not_belong_together_is_refused(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sweep_folder(tmp_path / "first", GRID.points[:2] if change != "nothing" else [])
    fixed = {**CONTENT["fixed"], "epochs": 3}
    other = {"options": {**CONTENT, "fixed": fixed}, "points": {**CONTENT, "axes": {"seeds": [1]}}}.get(change, CONTENT)
    second = sweep_folder(tmp_path / "second", [], other)
    if change == "runs":
        (second / "grid.yaml").unlink()
    message = {
        "options": r"second is of another sweep than .*first: at .* epochs is 3, was 2; report it alone",
        "points": r"second is of another sweep than .*first: their points differ",
        "runs": r"first is the folder of a sweep, and .*second is not",
        "nothing": r"no run of the sweep in .* is finished; go on with it: mist sweep .* --resume",
    }[change]
    with pytest.raises(SystemExit):
        main(["report", str(first), str(second), "--out", str(tmp_path / "joint")])
    assert re.search(message, capsys.readouterr().err)


def test_the_data_may_lie_elsewhere_on_each_machine(tmp_path: Path) -> None:
    content = {"fixed": {"data": "cub200", "data_root": "here", "method": ["simplecil"]}, "axes": {"seeds": [1, 2]}}
    grid = grid_file(tmp_path, content)
    own, given = prepared(grid, tmp_path / "out", None, False, None, None), make_grid(content, data_root="there")
    assert {point.options.data_root for point in own.points} == {"here"}
    assert {point.options.data_root for point in given.points} == {"there"}
    with pytest.raises(ValueError, match="data_root is 'there', but it is on an axis of the grid; leave one out"):
        make_grid({"axes": {"data": [{"data": "cub200", "data_root": "x"}]}}, data_root="there")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_points")
def test_a_sweep_run_in_parts_ends_in_the_table_of_the_undivided_one(
    tmp_path: Path, every_nth_digit: Callable[[int], None]
) -> None:
    every_nth_digit(8)
    fixed = {**CONTENT["fixed"], "method": ["simplecil", "ranpac"], "method_options": ["ranpac.width=50"]}
    content = {"fixed": fixed, "axes": {"tuner": ["none", "mist"], "seeds": [1]}}
    grid, quiet = grid_file(tmp_path, content), Console(file=io.StringIO())
    sweep(grid, tmp_path / "whole", console=quiet)
    for number in (1, 2):
        sweep(grid, tmp_path / f"part-{number}", console=quiet, part=Part(number, 2))
        assert (tmp_path / f"part-{number}" / "sweep.json").is_file()
    parts = [str(tmp_path / f"part-{number}") for number in (1, 2)]
    joined, whole = joining.join(parts), joining.join([str(tmp_path / "whole")])
    assert joined.json() == whole.json() == (tmp_path / "whole" / "sweep.json").read_text()
    for part in parts:  # copied into one folder, they are a sweep to go on with
        shutil.copytree(part, tmp_path / "merged", dirs_exist_ok=True)
    merged = sweep(grid, tmp_path / "merged", resume=True, console=quiet)
    assert merged.json() == whole.json()
