"""Which points of a sweep count as finished, and results that are not a point's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hand_made import of_matrices

from mist_ext.report import ResultsError
from mist_ext.sweep.grid import make_grid
from mist_ext.sweep.point_results import experiments, finished

(POINT,) = make_grid({"fixed": {"method": ["simplecil"]}, "axes": {"tuner": ["none"], "seeds": [1]}}).points


def complete() -> dict[str, Any]:
    content = of_matrices()
    metrics = {"average_accuracy": 82.5, "last_accuracy": 75.0, "forgetting": 10.0}
    return content | {"summary": {name: {"mean": mean, "std": 0.0} for name, mean in metrics.items()}}


def written(folder: Path, content: dict[str, Any]) -> Path:
    own = folder / POINT.name / "digits-none-simplecil"
    own.mkdir(parents=True)
    (own / "results.json").write_text(json.dumps(content))
    return own / "results.json"


def test_results_with_every_seed_and_task_are_finished(tmp_path: Path) -> None:
    written(tmp_path, complete())
    assert finished(tmp_path / POINT.name, POINT)
    (experiment,) = experiments(tmp_path, POINT)
    assert experiment.metric("last_accuracy") == (75.0, 0.0)


@pytest.mark.parametrize("lost", ["task", "run"])
def test_results_that_lack_something_are_not_finished_whatever_their_summary_says(lost: str, tmp_path: Path) -> None:
    content = complete()
    del (content["runs"][0]["tasks"] if lost == "task" else content["runs"])[-1]
    written(tmp_path, content)
    assert not finished(tmp_path / POINT.name, POINT)


@pytest.mark.parametrize(("part", "name"), [("method", "ranpac"), ("tuner", "mist"), ("data", "glyphs"), ("seed", 2)])
def test_results_of_something_else_are_refused_by_their_file(part: str, name: Any, tmp_path: Path) -> None:
    content = complete()
    if part == "seed":
        content["runs"][0]["seed"], content["config"]["seeds"] = name, [name]
    else:
        content["config"][part]["name"] = name
    file = written(tmp_path, content)
    assert finished(tmp_path / POINT.name, POINT)
    with pytest.raises(ResultsError, match=f"holds results of .*{name}.* not what the sweep runs there") as caught:
        experiments(tmp_path, POINT)
    assert str(file) in str(caught.value)
