"""Whole runs, small: what they leave on disk, that they repeat, and what they refuse."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from slow import first_is_quick

from mist_ext import data, methods
from mist_ext.config import Config
from mist_ext.results.metrics import METRICS
from mist_ext.runs import benchmark
from mist_ext.system.costs import PHASES, SHARED_EXTRACTION
from mist_ext.system.memory import NotEnoughMemory

TASK_ENTRIES = {
    "classes",
    "accuracy_seen",
    "top5_seen",
    "accuracy_per_task",
    "accuracy_per_class",
    "losses",
    "selection",
    "seconds",
    "selected_fraction",
    "kept_fraction",
    "changed_fraction",
    "changed_fraction_all",
    "peak_memory_bytes",
    "warnings",
}
VARYING = {"seconds", "peak_memory_bytes"}  # all else repeats bit for bit


@pytest.fixture
def few_digits(every_nth_digit: Callable[[int], None], shallow: None) -> None:
    """Leave a tenth of the digits, so that a run takes seconds."""
    every_nth_digit(10)


def run(folder: Path, **options) -> dict[str, dict]:
    settings = {"tuner": ["none", "mist"], "method": ["simplecil", "ranpac"], "seeds": [1], "epochs": 2}
    settings |= options
    if "ranpac" in settings["method"]:
        settings.setdefault("method_options", ["ranpac.width=50"])
    benchmark.run(Config(out=str(folder), **settings), Console(file=io.StringIO()))
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))}


def test_a_method_that_rehearses_trains_on_the_images_of_all_tasks_so_far(
    tmp_path: Path, few_digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[int]] = {"joint": [], "finetune": []}
    for name, sizes in given.items():
        kind = methods.named(name)

        def train(self, images, classes, kind=kind, sizes=sizes, original=kind.train) -> bool:
            sizes.append(len(images))
            return original(self, images, classes)

        monkeypatch.setattr(kind, "train", train)
    options = ["epochs=1", "batch_size=64"]
    run(tmp_path, tuner=["none"], method=["joint", "finetune"], method_options=options, classes_per_task=4)
    own = given["finetune"]
    assert len(own) == 3
    assert given["joint"] == [sum(own[: number + 1]) for number in range(3)]


def without_varying(value):
    if isinstance(value, dict):
        return {key: without_varying(entry) for key, entry in value.items() if key not in VARYING}
    return [without_varying(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("few_digits", "figures")
def test_a_run_leaves_results_configuration_log_and_figures(tmp_path: Path) -> None:
    experiments = run(tmp_path, method=["simplecil"], seeds=[1, 2])
    assert sorted(experiments) == ["digits-mist-simplecil", "digits-none-simplecil"]
    for name, experiment in experiments.items():
        assert experiment["schema"] == 1
        assert [one["seed"] for one in experiment["runs"]] == [1, 2]
        for one in experiment["runs"]:
            assert [set(task) for task in one["tasks"]] == [TASK_ENTRIES] * 2
            for task in one["tasks"]:
                measured = list(PHASES) if "mist" in name else ["learn", "evaluate"]
                for cost in ("seconds", "peak_memory_bytes"):
                    assert list(task[cost])[: len(PHASES)] == list(PHASES)
                    assert [phase for phase in PHASES if task[cost][phase]] == measured
                assert set(task["seconds"]) - set(PHASES) == {SHARED_EXTRACTION}
                assert {task["peak_memory_bytes"][phase] for phase in PHASES if phase not in measured} <= {None}
            assert [len(row) for row in one["accuracy_matrix"]] == [1, 2]
            assert one["last_accuracy"] == one["tasks"][-1]["accuracy_seen"]
            assert sorted(label for task in one["tasks"] for label in task["classes"]) == list(range(10))
        assert set(experiment["summary"]) == set(METRICS)
        files = {path.name for path in (tmp_path / name).iterdir()}
        kinds = ("accuracy", "matrix", "costs", "forgetting") + (("selection",) if "mist" in name else ())
        figures = {f"{kind}.{form}" for kind in kinds for form in ("png", "svg")}
        assert files == {"results.json", "config.yaml", "log.jsonl", "classifier-seed1.safetensors"} | figures
        assert len((tmp_path / name / "log.jsonl").read_text().splitlines()) == 4
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "run.yaml",
        "manifest.json",
        ".lock",
        "summary.json",
        "summary.md",
        "summary.csv",
        "summary.tex",
        "accuracy.png",
        "accuracy.svg",
        "report.html",
    }


@pytest.mark.usefixtures("few_digits")
def test_mist_changes_half_a_percent_in_a_step_and_none_changes_nothing(tmp_path: Path) -> None:
    experiments = run(tmp_path, method=["simplecil"], epochs=3)
    for task in experiments["digits-mist-simplecil"]["runs"][0]["tasks"]:
        assert task["selected_fraction"] == pytest.approx(0.05, abs=0.001)
        assert 0.003 < task["changed_fraction"]["mean"] <= task["kept_fraction"]["mean"]
        assert task["changed_fraction"]["max"] <= 0.0055
    for task in experiments["digits-none-simplecil"]["runs"][0]["tasks"]:
        assert task["changed_fraction"] is None


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("tuner", first_is_quick(["mist", "random", "full"]))
def test_the_same_configuration_gives_the_same_results(
    tuner: str, tmp_path: Path, every_nth_digit: Callable[[int], None]
) -> None:
    every_nth_digit(12)
    settings = {"tuner": [tuner], "method": ["simplecil"]}
    first, second = run(tmp_path / "first", **settings), run(tmp_path / "second", **settings)
    assert without_varying(first) == without_varying(second)
    other = run(tmp_path / "other", **settings, seeds=[2])
    name = f"digits-{tuner}-simplecil"
    assert other[name]["runs"][0]["accuracy_matrix"] != first[name]["runs"][0]["accuracy_matrix"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_methods_share_the_tuning_and_do_not_change_it(tmp_path: Path) -> None:
    together = run(tmp_path / "together", tuner=["mist"])
    alone = run(tmp_path / "alone", tuner=["mist"], method=["simplecil"])
    name = "digits-mist-simplecil"
    assert without_varying(together[name]["runs"]) == without_varying(alone[name]["runs"])


@pytest.mark.usefixtures("few_digits")
def test_the_class_order_can_be_fixed_over_seeds(tmp_path: Path) -> None:
    experiments = run(tmp_path, tuner=["none"], method=["simplecil"], seeds=[1, 2], class_order_seed=1993)
    orders = [[task["classes"] for task in one["tasks"]] for one in experiments["digits-none-simplecil"]["runs"]]
    assert orders[0] == orders[1]


@pytest.mark.usefixtures("few_digits")
def test_another_split(tmp_path: Path) -> None:
    experiments = run(tmp_path, tuner=["none"], classes_per_task=4)
    (one,) = experiments["digits-none-ranpac"]["runs"]
    assert [len(task["classes"]) for task in one["tasks"]] == [4, 4, 2]


def test_the_validation_part_comes_from_the_training_images_alone() -> None:
    source = data.load("digits")
    held_out = source.validation()
    assert len(held_out.train) + len(held_out.test) == len(source.train)
    known = {image.numpy().tobytes() for image in source.train.pixels}
    assert {image.numpy().tobytes() for image in held_out.test.pixels} <= known
    counts = held_out.test.labels.bincount() / source.train.labels.bincount()
    assert (counts - 0.25).abs().max() < 0.01
    assert (source.validation().test.labels == held_out.test.labels).all()


def test_fewer_images_of_a_class_are_always_the_same() -> None:
    source = data.load("digits")
    few, more = (source.with_fewer(count).train for count in (3, 5))
    assert few.labels.bincount().tolist() == [3] * 10
    assert {image.numpy().tobytes() for image in few.pixels} < {image.numpy().tobytes() for image in more.pixels}
    assert torch.equal(source.with_fewer(3).train.pixels, few.pixels)
    whole = source.with_fewer(10_000)
    assert torch.equal(whole.train.pixels, source.train.pixels)
    assert whole.test is source.test


@pytest.mark.usefixtures("few_digits")
def test_a_run_learns_from_as_many_images_of_a_class_as_it_is_told(tmp_path: Path) -> None:
    few = run(tmp_path / "few", tuner=["none"], method=["simplecil"], images_per_class=1)
    all_of_them = run(tmp_path / "all", tuner=["none"], method=["simplecil"])
    ours, theirs = (one["digits-none-simplecil"]["runs"][0] for one in (few, all_of_them))
    assert ours["accuracy_matrix"] != theirs["accuracy_matrix"]
    assert few["digits-none-simplecil"]["config"]["data"]["images_per_class"] == 1


@pytest.mark.usefixtures("few_digits")
def test_a_run_says_of_which_preset_it_is_and_how_many_images_it_takes(tmp_path: Path) -> None:
    given = {"data": "digits", "preset": "embedded/renditions", "tuner": ["none"], "seeds": [1], "images_per_class": 2}
    output = io.StringIO()
    benchmark.run(Config(out=str(tmp_path / "out"), method=["simplecil"], **given), Console(file=output, width=200))
    assert "settings are those of --preset embedded/renditions, and what is given besides" in output.getvalue()
    assert "20 training images are used: at most 2 of a class (--images-per-class)" in output.getvalue()


@pytest.mark.usefixtures("few_digits")
def test_a_used_folder_is_refused_until_overwritten(tmp_path: Path) -> None:
    run(tmp_path, tuner=["none"], method=["simplecil"])
    stamp = (tmp_path / "digits-none-simplecil" / "results.json").read_bytes()
    with pytest.raises(FileExistsError, match="already used"):
        run(tmp_path, tuner=["none"], method=["simplecil"], seeds=[3])
    assert (tmp_path / "digits-none-simplecil" / "results.json").read_bytes() == stamp
    experiments = run(tmp_path, tuner=["none"], method=["ranpac"], overwrite=True)
    assert list(experiments) == ["digits-none-ranpac"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "digts"}, "did you mean 'digits'"),
        ({"tuner": ["mits"]}, "did you mean 'mist'"),
        ({"method": ["simplecli"]}, "did you mean 'simplecil'"),
        ({"backbone": "vit_nani"}, "did you mean 'vit_nano'"),
        ({"dynamics": "exakt"}, "did you mean 'exact'"),
        ({"tuner": ["gradient"], "dynamics": "published"}, "'gradient' has exact dynamics only"),
        ({"tune_objective": "ec"}, "did you mean 'ce'"),
        ({"lora_layers": "("}, "no regular expression"),
        ({"tuner": []}, "tuner is"),
        ({"seeds": [1, 1]}, "seeds is"),
        ({"lr": 0.0}, "lr is 0.0, expected more than 0"),
        ({"lr": 1e308}, r"lr is 1e\+308, expected at most 3e\+38"),
        ({"epochs": 10**30}, r"epochs is 1000000000000000000000000000000, expected at most 9\.22337e\+18"),
        ({"rate": 1.5}, "rate is 1.5, expected at most 1"),
        ({"classes_per_task": 11}, "classes_per_task is 11, expected 1 to 10"),
        ({"device": "tpu"}, "device 'tpu' cannot be used"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"whole": "("}, r"whole is '\(', which is no regular expression"),
        ({"layers": "*"}, r"layers is '\*', which is no regular expression"),
        ({"layers": "attn", "shard": True}, "layers is 'attn', but shard is True"),
        ({"class_order_seed": -1}, "class_order_seed is -1, expected 0 or more"),
        ({"method_options": ["ranpac.width=0"]}, "width=0: RanPAC needs at least one random feature"),
        ({"precision": "bf16-pure", "dynamics": "published"}, "but dynamics is 'published': a dense optimiser"),
        ({"precision": "bf16-pure", "tuner": "full"}, "tuner 'full' has torch's dense SGD without fp32 masters"),
        ({"weights": "missing.pth"}, "missing.pth"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(tmp_path: Path, options: dict, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises((ValueError, OSError), match=message):
        benchmark.run(Config(out=str(out), **options), Console(file=io.StringIO()))
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("file", "is a file; choose"),
        ("file/out", "out cannot be made: .*file is a file; choose"),
        (".", "is already used, and no run was begun in it; choose another with --out"),
    ],
)
def test_an_output_path_that_is_no_run_s_is_refused(out: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match=told):
        benchmark.run(Config(out=str(tmp_path / out)), Console(file=io.StringIO()))
    assert os.listdir(tmp_path) == ["file"]


def test_scalars_are_written_as_they_come(tmp_path: Path, few_digits: None) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    experiments = run(tmp_path, tuner=["mist"], method=["simplecil"], tensorboard=True)

    def read(folder: Path) -> EventAccumulator:
        return EventAccumulator(str(folder)).Reload()

    tasks = experiments["digits-mist-simplecil"]["runs"][0]["tasks"]
    written = read(tmp_path / "digits-mist-simplecil" / "tensorboard" / "seed-1").Scalars("accuracy/seen")
    assert [each.step for each in written] == [1, 2]
    assert [each.value for each in written] == pytest.approx([task["accuracy_seen"] for task in tasks])
    losses = read(tmp_path / "tensorboard" / "mist-seed-1")
    score, tune = losses.Scalars("loss/score"), losses.Scalars("loss/tune")
    assert len(score) == len(tune) > 2  # one epoch each, two tasks
    assert sorted(each.step for each in score + tune) == list(range(1, len(score + tune) + 1))
    assert all(each.value > 0 for each in score + tune)


def test_memory_that_is_not_there_is_asked_for_before_any_work(tmp_path: Path) -> None:
    options = Config(out=str(tmp_path / "out"), method=["ranpac"], method_options=["width=2000000"])
    with pytest.raises(
        NotEnoughMemory, match=r"method 'ranpac' needs [\d,]+\.\d GB of memory, but .* width .* --method-options"
    ):
        benchmark.run(options, Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()
