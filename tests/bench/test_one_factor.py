"""The study of one factor at a time: its measures against hand-made features, and a small run of it that goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import one_factor
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_factor, "OWN", 3)
    monkeypatch.setattr(one_factor, "OTHERS", 4)
    monkeypatch.setattr(one_factor, "EVALUATED", 3)
    monkeypatch.setattr(one_factor, "COMMON", {"epochs": 2, "batch_size": 8})


def trial(**given: object) -> one_factor.Trial:
    return {"what": "x", "tuner": "none", "backbone": "vit_nano", "images": 4, "seed": 1, **given}


def test_the_nearest_mean_by_angle_is_predicted() -> None:
    means = torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 0.0]])
    assert one_factor.accuracy(features, torch.tensor([7, 7, 7]), means, first=7) == 66.67


def test_what_is_frozen_drifts_nowhere_and_stored_means_are_fresh() -> None:
    found = one_factor.measure(trial())
    for part in ("validation", "test"):
        assert found[part]["drift"] == 0
        assert found[part]["stale"] == found[part]["fresh"]
    assert found["losses"] == []


def test_tuning_moves_features_and_the_same_trial_has_the_same_end() -> None:
    first, again = (one_factor.measure(trial(tuner="mist", epochs=3, batch_size=6, lr=0.01)) for _ in range(2))
    assert first["test"]["drift"] > 0
    assert len(first["losses"]) == 2
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_images_to_choose_by_and_to_test_on_are_others_than_those_to_tune_on() -> None:
    own, train, validation, test = one_factor.world(1, 4)
    assert own.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert [len(part.labels) for part in (train, validation, test)] == [28, 21, 21]
    pixels = [{image.numpy().tobytes() for image in part.pixels} for part in (train, validation, test)]
    assert not pixels[0] & pixels[1] | pixels[0] & pixels[2] | pixels[1] & pixels[2]


def test_a_blur_smooths_all_images_and_makes_another_trial() -> None:
    for sharp, blurred in zip(one_factor.world(1, 4), one_factor.world(1, 4, blur=1.0), strict=True):
        assert torch.equal(sharp.labels, blurred.labels)
        steps, smoothed = (part.pixels.float().diff(dim=3).abs().mean() for part in (sharp, blurred))
        assert 0 < smoothed < 0.8 * steps
    plain, other = trial(), trial(blur=1.0)
    assert one_factor.key(plain) != one_factor.key(other)
    assert one_factor.measure(plain)["test"] != one_factor.measure(other)["test"]


@pytest.mark.slow
def test_trials_that_a_file_has_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = [{"what": "frozen", "tuner": "none"}, {"what": "MIST", "tuner": "mist"}]
    monkeypatch.setattr(one_factor, "STUDIES", {"ladder": rows})
    monkeypatch.setattr(one_factor, "ProcessPoolExecutor", InThisProcess)
    file = tmp_path / "found.json"
    command = ["one_factor.py", "ladder", "--backbone", "vit_nano", "--lr", "1e-3", "1e-2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    one_factor.main()
    written = file.read_bytes()
    assert len(json.loads(written)["trials"]) == 3
    table = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:] == ["frozen", "MIST"]
    one_factor.main()
    assert file.read_bytes() == written
    assert capsys.readouterr().out == table


class InThisProcess:
    """Stands in for a pool, whose processes would not have the small world of these tests."""

    def __init__(self, *_arguments: object) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.pool = ThreadPoolExecutor(1)

    def __enter__(self) -> object:
        return self.pool

    def __exit__(self, *_error: object) -> None:
        self.pool.shutdown()


def test_the_tables_of_the_pages_are_those_of_the_file() -> None:
    trials = json.loads((ROOT / "bench" / "results" / "one_factor.json").read_text(encoding="utf-8"))["trials"]
    found = {one_factor.key(trial): trial for trial in trials}
    pages = {"steps": "dropping", "blur": "benchmarks"}
    rows = {study: [row["what"] for row in one_factor.STUDIES[study]] for study in pages}
    ladder = [trial for trial in trials if not any(trial["what"] in of_study for of_study in rows.values())]
    tables = [("dropping", ladder)]
    for study, page in pages.items():
        chosen = [trial for trial in trials if trial["what"] in rows[study]]
        tables.append((page, sorted(chosen, key=lambda trial: rows[study].index(trial["what"]))))
    for page, chosen in tables:
        assert one_factor.table(chosen, found) in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert {trial["seed"] for trial in trials} == {1}
