"""Finding and reading results: folders, and files that are damaged, of another schema or of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hand_made import of_matrices

from mist_ext.report import ResultsError, parse_experiment, read_experiments


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(result))
    return folder


def test_folders_of_experiments_and_of_outputs_are_read_once_each(tmp_path: Path) -> None:
    for name in ("none", "mist"):
        write_result(tmp_path / "out" / f"digits-{name}-simplecil", of_matrices(name))
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
        ('{"schema": true}', "schema True, this version reads schema 1"),
        ('{"schema": 1}', "another version of mist_ext: Object missing required field `config`"),
        ('{"schema": 1, "config": {"data": {}}}', r"missing required field `name` - at `\$\.config\.data`"),
        ('{"schema": 1, "config": {}}', r"missing required field `data` - at `\$\.config`"),
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
        ("classes", [], r"Expected `array` of length >= 1 - at .*classes"),
        ("selection", [{"name": "w", "entries": 1, "selected": 1, "score_share": -1e100}], r"Expected `float` >= 0\.0"),
        ("classes", 5, "Expected `array`, got `int` - at .*classes"),
        ("seconds", {"tune": 1e308}, r"Expected `float` <= 1e\+100"),
        ("a_later_version_s", 1, "another version of mist_ext: Object contains unknown field `a_later_version_s`"),
    ],
)
def test_a_damaged_task_is_named(entry: str, value: Any, message: str) -> None:
    result = of_matrices()
    result["runs"][0]["tasks"][1][entry] = value
    with pytest.raises(ResultsError, match=message):
        parse_experiment(result, "x")


@pytest.mark.parametrize(
    ("entry", "value"),
    [("average_accuracy", 82.6), ("last_accuracy", 75.1), ("learning_accuracy", 80.5), ("forgetting", 9.0)],
)
def test_metrics_that_the_tasks_contradict_are_refused(entry: str, value: float) -> None:
    result = of_matrices()
    (run,) = result["runs"]
    run |= {"average_accuracy": 82.5, "last_accuracy": 75.0, "learning_accuracy": 80.0, "forgetting": 10.0}
    result["summary"] = {entry: {"mean": run[entry], "std": 0.0}}
    parse_experiment(result, "x")
    with pytest.raises(ResultsError, match=rf"x contradicts itself: summary\.{entry}\.std is 1\.0, but"):
        parse_experiment(result | {"summary": {entry: {"std": 1.0}}}, "x")
    run[entry] = value
    with pytest.raises(ResultsError, match=rf"{entry} is {value}, but the tasks give .* - at `\$\.runs\[0\]`"):
        parse_experiment(result, "x")


def test_a_matrix_and_a_summary_without_tasks_and_a_second_run_of_a_seed_are_refused() -> None:
    result = of_matrices()
    (run,) = result["runs"]
    with pytest.raises(ResultsError, match=r"accuracy_matrix is .*, but the tasks give"):
        parse_experiment(result | {"runs": [{**run, "accuracy_matrix": [[90.0], [80.0, 71.0]]}]}, "x")
    with pytest.raises(ResultsError, match=r"summary\.forgetting\.mean is 1\.0, but the tasks give None"):
        parse_experiment(result | {"runs": [], "summary": {"forgetting": {"mean": 1.0}}}, "x")
    with pytest.raises(ResultsError, match="there are 2 runs of seed 1, expected one"):
        parse_experiment(result | {"runs": [run, run]}, "x")


@pytest.mark.parametrize("part", ["data", "backbone", "tuner", "method"])
def test_a_configuration_without_a_name_is_refused(part: str) -> None:
    result = of_matrices()
    result["config"][part]["name"] = None
    with pytest.raises(ResultsError, match=r"name is None, expected str|Expected `str`, got `null` - at .*data\.name"):
        parse_experiment(result, "x")


@pytest.mark.parametrize("entry", ["accuracy_per_class", "seconds", "peak_memory_bytes", "selection", "warnings"])
def test_every_entry_of_a_task_is_required(entry: str) -> None:
    result = of_matrices()
    del result["runs"][0]["tasks"][1][entry]
    with pytest.raises(ResultsError, match=rf"another version of mist_ext: .*missing required field `{entry}`"):
        parse_experiment(result, "x")


def test_folders_without_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError, match=r"no results\.json in .*empty"):
        read_experiments([tmp_path / "empty"])
    with pytest.raises(ResultsError, match="absent is no folder"):
        read_experiments([tmp_path / "absent"])


def test_folders_without_results_do_not_keep_others_from_being_read(tmp_path: Path) -> None:
    write_result(tmp_path / "full" / "digits-none-simplecil", of_matrices())
    write_result(tmp_path / "nested" / "inner" / "digits-mist-simplecil", of_matrices("mist"))
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
