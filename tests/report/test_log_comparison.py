"""Runs beside the authors' logs: runs made by hand that agree, that differ, and that cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hand_made import results, task_record

from mist_ext import cli
from mist_ext.config import Config, TuningOptions, presets
from mist_ext.data import published_splits
from mist_ext.data.class_order import permuted
from mist_ext.report.log_comparison import NEW, SEEN, TOP5, compare_with_logs
from mist_ext.report.parsing import ResultsError, parse_experiment
from mist_ext.results import authors_logs

(SPLIT,) = published_splits.SPLITS["imagenet_r"]
TASKS = 10
ORDER = permuted(200, 1993)


def run_of(method: str, off: list[float], config: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """A run whose accuracies and losses are the log's, plus so many points for each of its seeds."""
    log = authors_logs.log_of(method)
    seeds = {}
    for seed, points in enumerate(off):
        seeds[seed] = [
            task_record(
                ORDER[20 * task : 20 * task + 20],
                [*[50.0] * task, new + points],
                accuracy_seen=seen + points,
                top5_seen=min(100.0, top5 + points),
                losses={"score": [losses[0] + points], "tune": [loss + points for loss in losses[1:]]},
            )
            for task, (seen, top5, new, losses) in enumerate(
                zip(
                    log.accuracy_seen_per_task,
                    log.top5_seen_per_task,
                    log.accuracy_new_classes_per_task,
                    log.loss_per_task_and_epoch,
                    strict=True,
                )
            )
        ]
    content = results(seeds, "mist", method, "imagenet_r", class_order_seed=1993, **(config or {}))
    content["config"]["data"] |= {"split": SPLIT.words, "classes_per_task": 20, **data}
    options = Config(**presets.preset(log.preset))
    content["config"]["data"]["normalize"] = "published"
    content["config"]["backbone"] |= {"name": options.backbone, "weights": options.weights}
    tuning = {field.name: getattr(options, field.name) for field in dataclasses.fields(TuningOptions)}
    content["config"]["tuner"] |= tuning
    content["config"]["method"] |= {"width": 10_000} if method == "ranpac" else {}
    return content


def written(folder: Path, content: dict[str, Any]) -> str:
    own = folder / "imagenet_r-mist-x"
    own.mkdir(parents=True)
    (own / "results.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize("method", authors_logs.methods())
def test_a_run_that_is_the_log_agrees_task_by_task(method: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["compare", written(tmp_path, run_of(method, [0.0]))]) == 0
    output = capsys.readouterr().out
    assert output.count("agrees\n") + output.count("agrees \n") >= 4 * TASKS
    assert "none of 10 tasks differs" in output
    assert "the authors' run log" in output
    assert "not the paper's tables" in " ".join(output.split())
    assert "changed" not in output


def test_a_run_that_differs_is_told_by_task_and_by_status(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = run_of("ranpac", [0.0])
    content["runs"][0]["tasks"][3]["accuracy_seen"] -= 3
    folder = written(tmp_path, content)
    assert cli.main(["compare", folder]) == 1
    output = capsys.readouterr().out
    assert "1 of 10 tasks differ" in output
    assert "-3.00" in output
    assert cli.main(["compare", folder, "--tolerance", "3.5"]) == 0


def test_losses_have_a_tolerance_of_their_own(tmp_path: Path) -> None:
    folder = written(tmp_path, run_of("ranpac", [0.3]))
    assert cli.main(["compare", folder]) == 1
    assert cli.main(["compare", folder, "--loss-tolerance", "0.31"]) == 0


def test_several_seeds_agree_within_their_spread() -> None:
    apart = parse_experiment(run_of("simplecil", [1.0, 6.0]), "x")  # mean 3.5, standard deviation 3.5
    tables, agree = compare_with_logs([apart], 2.0, 0.2)
    assert agree
    verdicts = [line.cells[place].text for line in tables.tables[0].lines for place in (5, 9, 17)]  # all but the top 5
    assert verdicts == ["within the spread"] * 3 * TASKS
    close = parse_experiment(run_of("simplecil", [3.4, 3.6]), "x")
    assert not compare_with_logs([close], 2.0, 0.2)[1]


@pytest.mark.parametrize(
    ("part", "setting", "told"),
    [
        ("tuner", {"lr": 0.01}, "lr 0.01 (log: 0.0001)"),
        ("tuner", {"layers": "attn"}, "layers 'attn' (log: '')"),
        ("tuner", {"strike_factor": 0.3}, "strike_factor 0.3 (log: 0.9)"),
        ("tuner", {"tune_objective": "ce"}, "tune_objective 'ce' (log: 'mi')"),
        ("tuner", {"precision": "bf16"}, "precision 'bf16' (log: 'fp32')"),
        ("backbone", {"name": "vit_small"}, "backbone 'vit_small' (log: 'vit_base_patch16_224.augreg_in21k')"),
        ("backbone", {"weights": "none"}, "weights 'none' (log: 'pretrained')"),
        ("data", {"normalize": "model"}, "normalize 'model' (log: 'published')"),
        ("data", {"augmentation": "none"}, "augmentation 'none' (log: 'auto')"),
        ("data", {"images_per_class": 5}, "images_per_class 5 (log: None)"),
        ("method", {"width": 2000}, "ranpac.width '2000' (log: '10000')"),
    ],
)
def test_changed_settings_are_told_with_both_values(part: str, setting: dict[str, Any], told: str) -> None:
    content = run_of("ranpac", [0.0])
    content["config"][part] |= setting
    tables, _ = compare_with_logs([parse_experiment(content, "x")], 2.0, 0.2)
    (note,) = [note.text for note in tables.notes if "changed" in note.text]
    assert note == f"imagenet_r-mist-ranpac: changed: {told}"


def test_without_the_log_s_epochs_no_losses_are_compared() -> None:
    content = run_of("simplecil", [0.0])
    for task in content["runs"][0]["tasks"]:
        task["losses"]["tune"] = task["losses"]["tune"][:5]
    tables, agree = compare_with_logs([parse_experiment(content, "x")], 2.0, 0.2)
    assert agree
    assert list(tables.tables[0].parts) == [SEEN, NEW, TOP5]
    (note,) = [note.text for note in tables.notes if note.warning]
    assert note == "imagenet_r-mist-simplecil: no losses are compared: not every task has the log's 20 epochs"


def test_an_interrupted_run_is_compared_as_far_as_it_got_and_is_no_success() -> None:
    content = run_of("simplecil", [0.0, 0.0])
    for run in content["runs"]:
        run["tasks"] = run["tasks"][:4]
    del content["runs"][1]["tasks"][3]
    tables, agree = compare_with_logs([parse_experiment(content, "x")], 2.0, 0.2)
    assert not agree
    assert len(tables.tables[0].lines) == 4
    (note,) = [note.text for note in tables.notes if "incomplete" in note.text]
    assert "seed 0 has 4 of 10 tasks; seed 1 has 3 of 10 tasks" in note


def test_an_experiment_that_has_no_task_yet_hides_no_other() -> None:
    begun, waiting = run_of("simplecil", [0.0]), run_of("ranpac", [0.0])
    waiting["runs"] = []
    tables, agree = compare_with_logs([parse_experiment(each, "x") for each in (begun, waiting)], 2.0, 0.2)
    assert not agree
    assert len(tables.tables) == 1
    with pytest.raises(ResultsError, match="here is imagenet_r-mist-ranpac without a finished task"):
        compare_with_logs([parse_experiment(waiting, "x")], 2.0, 0.2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "imagenet_a"}, "the data set is imagenet_a, there imagenet_r; run --preset mist/imagenet_r"),
        ({"split": ""}, "its split is no published one, there the class-incremental field's resampled split"),
        ({"tasks": 5}, "the number of tasks is 5, there 10"),
        ({"evaluated_on": "validation"}, "what it was evaluated on is validation, there test"),
    ],
)
def test_a_run_of_other_data_is_refused(data: dict, message: str) -> None:
    content = run_of("ranpac", [0.0], **data)
    with pytest.raises(ResultsError, match=re.escape(message)):
        compare_with_logs([parse_experiment(content, "x")], 2.0, 0.2)


@pytest.mark.parametrize("sizes", [[30, *[20] * 8, 10], [20] * 10])
def test_a_run_of_another_stream_is_refused(sizes: list[int]) -> None:
    order = ORDER if sizes[0] == 30 else permuted(200, 7)
    content = run_of("ranpac", [0.0])
    for task, size in zip(content["runs"][0]["tasks"], sizes, strict=True):
        task["classes"], order = order[:size], order[size:]
        task["accuracy_per_class"] = [None] * (200 - len(order))
    with pytest.raises(
        ResultsError, match=r"task 1 of seed 0 has the classes .* of classes_per_task 20 and class_order"
    ):
        compare_with_logs([parse_experiment(content, "x")], 2.0, 0.2)


def test_a_run_without_mist_has_no_log(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = run_of("ranpac", [0.0])
    content["config"]["tuner"]["name"] = "none"
    with pytest.raises(SystemExit):
        cli.main(["compare", written(tmp_path, content)])
    assert "logs of MIST before ranpac and simplecil, and here is imagenet_r-none-ranpac" in capsys.readouterr().err


@pytest.mark.parametrize("tolerance", ["-1", "nan", "much"])
def test_a_tolerance_is_a_number(tolerance: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare", written(tmp_path, run_of("ranpac", [0.0])), f"--tolerance={tolerance}"])
    assert "tolerance is" in capsys.readouterr().err
