"""Sweeps as a user starts them, on the smallest grids."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from forked import Forked
from rich.console import Console

from mist_ext import data
from mist_ext.cli import main
from mist_ext.sweep import pool, run
from mist_ext.sweep.grid import make_grid
from mist_ext.sweep.point import Point
from mist_ext.system import lock

SMALLEST = {"data": "digits", "method": ["simplecil"], "classes_per_task": 5, "epochs": 2, "save": "none"}


def start(*arguments: str) -> Forked:
    return Forked("-m", "mist_ext", "sweep", *arguments)


def sweep(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode is not None
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
    try:
        with lock.locked(folder):
            return False
    except ValueError:
        return True


@pytest.mark.parametrize("jobs", [1, 3, 20])
def test_so_many_runs_are_at_work_as_jobs_are_given(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(point: Point, folder: Path, environment: dict) -> subprocess.Popen:
        work = f"import time; time.sleep({0.1 + 0.05 * point.seed})"
        return subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE)

    monkeypatch.setattr(pool, "_start", start)
    points = make_grid({"axes": {"tuner": ["none"], "seeds": [1, 2, 3, 4, 5]}}).points
    at_work: list[int] = []
    ended = [one.point for one in pool.run_points(points, tmp_path, jobs, lambda message: None, at_work.append)]
    assert sorted(point.seed for point in ended) == [1, 2, 3, 4, 5]
    assert max(at_work) == min(jobs, 5)


def test_a_mistake_is_answered_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for axes, message in (
        ({"rat": [0.1]}, "did you mean 'rate'"),
        ({"backbone": ["vit_nano", "vit_nanno"], "seeds": [1]}, "did you mean 'vit_nano'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", written(tmp_path, axes), "--out", str(out)])
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert message in said.err
        assert said.out == ""
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
    run.check_points(make_grid({"fixed": {"method": ["simplecil"]}, "axes": axes}).points, Console(file=io.StringIO()))
    assert loaded == ["digits", "glyphs"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_points")
def test_a_sweep_goes_on_after_a_signal_and_after_a_kill_and_ends_in_one_table(
    tmp_path: Path, every_nth_digit: Callable[[int], None]
) -> None:
    every_nth_digit(4)
    axes = {"tuner": ["mist", "none"], "seeds": [1]}
    grid = written(tmp_path, axes, epochs=6)
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
    status, _, errors = sweep(written(tmp_path, axes, epochs=6, lr=0.1), "--out", str(out), "--resume")
    assert status == 2
    assert "lr is 0.1, was 0.003" in errors

    grid = written(tmp_path, axes, epochs=6)
    process = start(grid, "--out", str(out), "--jobs", "1", "--resume")
    wait_for(lambda: is_running(results.parents[1]))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not is_running(results.parents[1]), 60)  # the run noticed, and stopped as if it had been asked
    # It may have ended before its checkpoint brought the results back.
    assert not (results.is_file() and "summary" in json.loads(results.read_text()))

    status, output, errors = sweep(grid, "--out", str(out), "--resume")
    assert status == 0, errors
    assert json.loads(results.read_text())["runs"][0]["tasks"][0] == first_task  # not done again
    assert (out / "digits-mist-seed=1" / "output.txt").read_text().count("seed 1 mist task 1/2: simplecil") == 1
    content = json.loads((out / "sweep.json").read_text())
    assert [(row["axes"]["tuner"], row["seeds"]) for row in content["rows"]] == [("mist", [1]), ("none", [1])]
    assert content["rows"][0]["gain_over_none"]["n"] == 1
    assert (out / "sweep.md").is_file()
    assert (out / "sweep.tex").is_file()
    assert "2 experiments of the grid from 2 runs: 1 tuning" in " ".join(output.split())


def test_a_sweep_ends_in_one_table(tmp_path: Path) -> None:
    """Its points are processes as a user has them."""
    out = tmp_path / "out"
    status, output, errors = sweep(written(tmp_path, {"tuner": ["none"], "seeds": [1, 2]}), "--out", str(out))
    assert status == 0, errors
    assert "2 experiments of the grid from 2 runs: 0 tunings" in " ".join(output.split())
    (row,) = json.loads((out / "sweep.json").read_text())["rows"]
    assert row["seeds"] == [1, 2]
    for form in ("md", "csv", "tex"):
        assert (out / f"sweep.{form}").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("forked_points")
def test_a_point_that_fails_stops_no_other_and_is_repeated(
    tmp_path: Path, every_nth_digit: Callable[[int], None]
) -> None:
    every_nth_digit(8)
    axes = {"tuner": ["none", "mist"], "lr": [1e30], "seeds": [1]}  # which makes no finite features
    grid, out = written(tmp_path, axes), tmp_path / "out"
    for arguments in ([], ["--resume"]):
        status, output, errors = sweep(grid, "--out", str(out), *arguments)
        assert status == 1, errors
        failed = out / "digits-mist-lr=1e+30-seed=1"
        error = (failed / "error.txt").read_text()
        assert "Traceback" in error
        first = error.splitlines()[0]
        assert "training diverged in task 1" in first
        # Lines are broken where the terminal ends, also within a path.
        assert "".join(f"failed: {failed.name}: {first}".split()) in "".join(output.split())
        content = json.loads((out / "sweep.json").read_text())
        assert [row["axes"]["tuner"] for row in content["rows"]] == ["none"]
        assert list(content["failures"]) == [failed.name]
    assert "1 of them finished" in output
