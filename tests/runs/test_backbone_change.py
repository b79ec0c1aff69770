"""What tuning does to the backbone: three numbers against their direct computation, and in whole runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import results, task_record
from rich.console import Console

from mist_ext import backbones
from mist_ext.config import Config
from mist_ext.data.letters import CLASSES, PER_CLASS, letters
from mist_ext.data.stream import Stream
from mist_ext.report import parse_experiment, table, write_summary
from mist_ext.runs import benchmark, classifiers
from mist_ext.runs.backbone_change import BackboneChange, linear_probe_accuracy, mean_cosine, new_classes_accuracy


def drawn(rows: int, seed: int, width: int = 6) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_drift_is_the_mean_cosine_of_each_image_s_two_features() -> None:
    before, after = drawn(9, 0), drawn(9, 1)
    cosines = [float(a @ b) / float(a.norm() * b.norm()) for a, b in zip(before, after, strict=True)]
    assert mean_cosine(before, after) == pytest.approx(sum(cosines) / 9, abs=1e-6)
    assert mean_cosine(before, before.clone()) == 1.0
    assert mean_cosine(before, 3 * before) == pytest.approx(1.0)
    assert mean_cosine(before, -before) == -1.0


def test_the_probe_is_a_ridge_regression_with_the_penalty_of_least_left_out_error() -> None:
    x, y = drawn(40, 2), torch.arange(40) % 4
    held_out, labels = drawn(30, 3), torch.arange(30) % 4
    x, held_out = x + 1.5 * torch.eye(6)[y], held_out + 1.5 * torch.eye(6)[labels]
    targets = 2 * np.eye(4)[y] - 1
    a = x.double().numpy()
    centre, middle = a.mean(0), targets.mean(0)
    best: tuple[float, np.ndarray] = (np.inf, np.empty(0))
    for penalty in np.logspace(-2, 4, 7):
        error = 0.0
        for left in range(40):
            kept = np.arange(40) != left
            mean, aim = a[kept].mean(0), targets[kept].mean(0)
            b = a[kept] - mean
            w = np.linalg.solve(b.T @ b + penalty * np.eye(6), b.T @ (targets[kept] - aim))
            error += float((((a[left] - mean) @ w + aim - targets[left]) ** 2).sum())
        if error < best[0]:
            b = a - centre
            best = error, np.linalg.solve(b.T @ b + penalty * np.eye(6), b.T @ (targets - middle))
    scores = (held_out.double().numpy() - centre) @ best[1] + middle
    expected = 100 * float((scores.argmax(1) == labels.numpy()).mean())
    assert 40 < expected < 100
    assert linear_probe_accuracy((x, y), (held_out, labels)) == pytest.approx(expected)


def test_plasticity_is_the_accuracy_among_the_new_classes_alone() -> None:
    labels, test_labels = 5 + torch.arange(30) % 3, 5 + torch.arange(21) % 3
    features, test = drawn(30, 4) + 2 * torch.eye(6)[labels - 3], drawn(21, 5) + 2 * torch.eye(6)[test_labels - 3]
    means = torch.stack([features[labels == label].mean(0) for label in (5, 6, 7)])
    cosines = torch.nn.functional.cosine_similarity(test[:, None], means[None], dim=2)
    expected = 100 * float((cosines.argmax(1) + 5 == test_labels).double().mean())
    assert 60 < expected < 100
    assert new_classes_accuracy((features, labels), (test, test_labels)) == pytest.approx(expected)


def test_every_task_is_compared_with_the_one_before_it() -> None:
    change = BackboneChange()
    labels = torch.arange(8) % 2
    probe = ((drawn(8, 6), labels), (drawn(8, 7), labels))
    first, moved, second, third = (drawn(8, seed) for seed in (8, 9, 10, 11))
    assert change.measure((first, labels), [(first, labels)], probe).drift is None
    resumed = BackboneChange()
    resumed.load_state_dict(change.state_dict())
    for one in (change, resumed):
        found = one.measure((second, labels + 2), [(moved, labels), (second, labels + 2)], probe)
        assert found.drift == pytest.approx(mean_cosine(first, moved))
        tests = [(moved, labels), (-second, labels + 2), (third, labels + 4)]
        assert one.measure((third, labels + 4), tests, probe).drift == pytest.approx(0.0)  # the mean of 1 and -1


def test_the_letters_are_always_the_same_and_no_image_is_in_both_parts() -> None:
    first, again = letters(), letters()
    for part in ("train", "test"):
        assert torch.equal(getattr(first, part).pixels, getattr(again, part).pixels)
        assert getattr(first, part).labels.bincount().tolist() == [PER_CLASS] * len(CLASSES)
    seen = {image.numpy().tobytes() for image in first.train.pixels}
    assert len(seen) == len(first.train)
    assert not seen & {image.numpy().tobytes() for image in first.test.pixels}


def test_the_pre_trained_backbone_knows_the_letters_and_a_random_one_does_not() -> None:
    (task,) = Stream(letters(), None, 0)
    found = {}
    for weights in ("pretrained", "none"):
        torch.manual_seed(0)
        backbone = backbones.create("vit_nano", weights).eval()
        parts = []
        for images in (task.train, task.test):
            pixels = torch.stack([pixels for pixels, _ in images])
            with torch.no_grad():
                parts.append((backbone(pixels), images.labels))
        found[weights] = linear_probe_accuracy(*parts)
    assert found["pretrained"] > 80
    assert found["none"] < 15


@pytest.fixture
def few_digits(every_nth_digit: Callable[[int], None]) -> None:
    """Leave a part of the digits, so that a run takes seconds."""
    every_nth_digit(16)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_a_run_tells_what_tuning_does_to_the_backbone(tmp_path: Path) -> None:
    options = {"tuner": ["none", "mist", "full"], "method": ["simplecil", "ranpac"], "seeds": [1], "epochs": 2}
    options["method_options"] = ["ranpac.width=50"]
    settings = Config(**options, classes_per_task=5, diagnose=True, full_lr=1e-3, out=str(tmp_path))
    benchmark.run(settings, Console(file=io.StringIO()))
    found = {}
    for tuner in options["tuner"]:
        records = [
            [task["backbone"] for task in json.loads(path.read_text())["runs"][0]["tasks"]]
            for path in (tmp_path / f"digits-{tuner}-{method}" / "results.json" for method in options["method"])
        ]
        assert records[0] == records[1]  # whatever the method
        assert [set(record) for record in records[0]] == [{"drift", "letters", "plasticity"}] * 2
        found[tuner] = records[0]
    assert [record["drift"] for record in found["none"]] == [None, 1.0]
    assert len({record["letters"] for record in found["none"]}) == 1
    assert found["none"][0]["letters"] > 80
    for tuner in ("mist", "full"):
        assert found[tuner][0]["drift"] is None
        assert 0 < found[tuner][1]["drift"] < 1
    assert found["full"][1]["drift"] < found["mist"][1]["drift"]

    # The saved classifier's backbone is the one after the last task.
    classifier = classifiers.load(tmp_path / "digits-full-simplecil", 1)
    (task,) = Stream(letters(), None, 0)
    parts = []
    for images in (task.train, task.test):
        pixels = torch.stack([pixels for pixels, _ in images])
        with torch.no_grad():
            parts.append((classifier.backbone.eval()(pixels), images.labels))
    assert linear_probe_accuracy(*parts) == pytest.approx(found["full"][-1]["letters"], abs=0.4)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits", "shallow")
def test_the_diagnosis_changes_nothing_else(tmp_path: Path) -> None:
    matrices = []
    for diagnose in (False, True):
        options = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "epochs": 2, "diagnose": diagnose}
        benchmark.run(Config(**options, out=str(tmp_path / str(diagnose))), Console(file=io.StringIO()))
        file = tmp_path / str(diagnose) / "digits-mist-simplecil" / "results.json"
        (run,) = json.loads(file.read_text())["runs"]
        assert all(("backbone" in task) == diagnose for task in run["tasks"])
        matrices.append(run["accuracy_matrix"])
    assert matrices[0] == matrices[1]


def experiment(tuner: str, *seeds: list[dict | None]):
    """An experiment as read from results.json, of one diagnosis (or none) for each task of each seed."""
    runs = {
        seed: [
            task_record([task], [50.0] * (task + 1), **({} if entry is None else {"backbone": entry}))
            for task, entry in enumerate(found)
        ]
        for seed, found in enumerate(seeds)
    }
    return parse_experiment(results(runs, tuner), f"out/{tuner}/results.json")


def test_reports_show_the_diagnosis_where_there_is_one(tmp_path: Path) -> None:
    def of_task(drift: float | None, letters: float, plasticity: float) -> dict:
        return {"drift": drift, "letters": letters, "plasticity": plasticity}

    seeds = [
        [of_task(None, 90.0, 80.0), of_task(0.9, 70.0, 60.0), of_task(0.7, 50.0, 70.0)],
        [of_task(None, 90.0, 90.0), of_task(0.9, 70.0, 90.0), of_task(0.9, 60.0, 90.0)],
    ]
    experiments = [experiment("full", *seeds), experiment("none", [None, None, None], [None, None, None])]
    output = io.StringIO()
    Console(file=output, width=120).print(table(experiments))
    for value in ("0.8500 ± 0.0707", "55.00 ± 7.07", "80.00 ± 14.14", "drift: cosine"):
        assert value in output.getvalue()
    write_summary(experiments, tmp_path)
    (none, full) = csv.DictReader((tmp_path / "summary.csv").open())
    assert float(full["drift_mean"]) == pytest.approx(0.85)
    assert none["drift_mean"] == ""
    joined = json.loads((tmp_path / "summary.json").read_text())["experiments"]
    assert joined[0]["backbone_change"] == {"drift": None, "letters": None, "plasticity": None}
    assert joined[1]["backbone_change"]["letters"]["mean"] == 55.0
    assert "| 0.8500 ± 0.0707 | 55.00 ± 7.07 | 80.00 ± 14.14 |" in (tmp_path / "summary.md").read_text()


def test_reports_without_a_diagnosis_do_not_speak_of_it(tmp_path: Path) -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(table([experiment("none", [None])]))
    assert "plasticity" not in output.getvalue()
    write_summary([experiment("none", [None])], tmp_path)
    assert "plasticity" not in (tmp_path / "summary.md").read_text()
