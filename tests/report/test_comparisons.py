"""The numbers of experiments beside others: means, pairing, and what is missing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hand_made import BETTER, TWO_SEEDS, experiment_of, of_matrices

from mist_ext.report import Experiment, as_text, parse_experiment, read_experiments
from mist_ext.report.comparisons import compare
from mist_ext.report.full_precision import json_text
from mist_ext.report.joint_table import joint_table


def test_numbers_are_means_and_sample_deviations_over_seeds() -> None:
    (one,) = compare([experiment_of(matrices=TWO_SEEDS)])
    assert one.experiment.metric("average_accuracy") == pytest.approx(((82.5 + 89.5) / 2, 7 / 2**0.5))
    assert one.experiment.metric("last_accuracy") == pytest.approx((80.0, 10 / 2**0.5))
    assert one.experiment.metric("forgetting") == pytest.approx((7.0, 6 / 2**0.5))
    assert one.experiment.seeds == [1, 2]


def test_costs_are_summed_over_tasks_and_averaged_over_seeds() -> None:
    (one,) = compare([experiment_of("mist", matrices=TWO_SEEDS, tuned=True)])
    assert one.experiment.seconds == pytest.approx(
        {"score": 2.0, "select": 0.2, "tune": 18.0, "learn": 1.0, "evaluate": 0.5, "total": 21.7}
    )
    assert one.experiment.fractions == pytest.approx({
        "selected": 0.05, "kept": 0.1, "changed": 0.005, "changed_max": 0.0052,
        "changed_all": 0.0052, "changed_all_max": 0.0053,
    })  # fmt: skip


def test_what_was_not_measured_is_none_not_zero() -> None:
    (one,) = compare([experiment_of()])
    assert one.experiment.seconds == {
        "score": None,
        "select": None,
        "tune": None,
        "learn": 1.0,
        "evaluate": 0.5,
        "total": 1.5,
    }
    assert set(one.experiment.fractions.values()) == {None}
    assert one.gain is None


def gain_of(tuned: Experiment, *others: Experiment) -> Any:
    return next(one.gain for one in compare([tuned, *others]) if one.experiment is tuned)


def test_the_gain_is_paired_by_seed_with_the_frozen_experiment() -> None:
    # Seed 1: 85 - 75, seed 2: 88 - 85; seed 3 has no partner.
    gain = gain_of(experiment_of("mist", matrices=BETTER), experiment_of(matrices=TWO_SEEDS))
    assert gain == pytest.approx((6.5, 7 / 2**0.5, 2))


def test_a_run_on_fewer_images_is_compared_with_none_on_all() -> None:
    few = experiment_of(matrices=TWO_SEEDS)
    few.config.data.images_per_class = 40
    tuned = experiment_of("mist", matrices=BETTER)
    assert gain_of(tuned, few) is None
    titles = [table.title for table in joint_table(compare([tuned, few])).tables]
    assert titles == [
        "digits · vit_nano · 2 tasks · 3 seeds",
        "digits · vit_nano · 2 tasks · at most 40 images a class · 2 seeds",
    ]


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
    assert gain_of(experiment_of("mist"), experiment_of(**other)) is None


def test_a_seed_with_other_classes_in_its_tasks_does_not_pair() -> None:
    result = of_matrices()
    result["runs"][0]["tasks"][1]["classes"] = [2, 7]
    assert gain_of(experiment_of("mist"), parse_experiment(result, "")) is None


def test_the_frozen_experiment_of_the_same_output_folder_comes_first(tmp_path: Path) -> None:
    for out, last in (("a", 10.0), ("b", 20.0)):
        _write(tmp_path / out / "none", of_matrices(matrices={1: [[last]]}))
        _write(tmp_path / out / "mist", of_matrices("mist", matrices={1: [[30.0]]}))
    rows = compare(read_experiments([tmp_path / "a", tmp_path / "b"]))
    assert {row.label: row.gain.mean for row in rows if row.gain} == {"mist (a)": 20.0, "mist (b)": 10.0}


def test_every_file_tells_runs_of_one_name_apart(tmp_path: Path) -> None:
    folders = [tmp_path / out for out in ("a/out", "b/out", "c")]
    for folder in folders:
        _write(folder / "digits-mist-simplecil", of_matrices("mist"))
    experiments = read_experiments(folders)
    labels = ["mist (a/out)", "mist (b/out)", "mist (c)"]
    assert [row.label for row in compare(experiments)] == labels
    assert [row["label"] for row in csv.DictReader(io.StringIO(as_text(experiments, "csv")))] == labels
    assert [row["label"] for row in json.loads(json_text(compare(experiments)))["experiments"]] == labels


def test_shorter_runs_are_named_and_left_out_of_the_means() -> None:
    experiment = experiment_of(matrices=TWO_SEEDS | {3: [[1.0]]}, finished=False)
    assert experiment.gaps == ["seed 3 has 1 of 2 tasks"]
    (one,) = compare([experiment])
    assert one.experiment.seeds == [1, 2]
    assert one.experiment.metric("last_accuracy") == pytest.approx((80.0, 10 / 2**0.5))
    assert "digits, none, simplecil: incomplete, seed 3 has 1 of 2 tasks" in as_text([experiment], "markdown")


def test_the_configuration_tells_of_seeds_and_tasks_that_are_missing_altogether() -> None:
    result = of_matrices(finished=False, seeds=[1, 2, 3])
    result["config"]["data"]["tasks"] = 5
    assert parse_experiment(result, "").gaps == ["seed 1 has 2 of 5 tasks", "seeds 2, 3 without a finished task"]


def test_a_missing_summary_alone_is_reported_as_an_interruption() -> None:
    assert experiment_of().gaps == []
    assert experiment_of(finished=False).gaps == ["the run was interrupted before its summary"]


def _write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
