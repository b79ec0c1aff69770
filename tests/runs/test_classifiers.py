"""Trained classifiers, saved and loaded, predict what the run's own did."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from fewer_images import every_nth
from PIL import Image
from rich.console import Console
from slow import first_is_quick

import mist_ext
from mist_ext import data, methods
from mist_ext.config import Config
from mist_ext.data import digits
from mist_ext.data.decode import BrokenImage
from mist_ext.data.transforms import RandomCrops
from mist_ext.runs import benchmark, classifiers

FROM_FEATURES = ("simplecil", "ranpac")


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch, shallow: None) -> data.source.Source:
    """Every twelfth image of the digits source, so that a run takes seconds."""
    few = every_nth(12)
    monkeypatch.setattr(digits, "digits", lambda: few)
    return few


def run(folder: Path, **options) -> None:
    settings = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1, 2], "epochs": 2, **options}
    if any("ranpac" in method for method in settings["method"]):
        settings["method_options"] = ["width=30", *settings.get("method_options", [])]
    benchmark.run(Config(out=str(folder), **settings), Console(file=io.StringIO()))


@pytest.mark.parametrize("tuner", first_is_quick(["none", "mist"]))
@pytest.mark.parametrize("method", ["simplecil", "ranpac", "ranpac_adapter", "aper_adapter", "l2p", "slca"])
def test_a_loaded_classifier_is_as_accurate_as_the_run_s_own(tuner, method, few_digits, tmp_path: Path) -> None:
    run(
        tmp_path,
        tuner=[tuner],
        method=[method],
        seeds=[1],
        method_options=[] if method in FROM_FEATURES else ["epochs=1"],
    )
    classifier = mist_ext.load(tmp_path)
    test = few_digits.test
    predicted = classifier.predict([test.read(i) for i in range(len(test))], top=1)
    right = [best[0][0] == few_digits.class_names[label] for best, label in zip(predicted, test.labels, strict=True)]
    (experiment,) = mist_ext.report.read_experiments([tmp_path])
    assert 100 * np.mean(right) == pytest.approx(experiment.runs[0].seen[-1])


def test_paths_and_open_images_are_the_same(few_digits, tmp_path: Path) -> None:
    run(tmp_path / "run", tuner=["none"])
    image = few_digits.test.read(5)
    image.save(tmp_path / "five.png")
    classifier = classifiers.load(tmp_path / "run" / "digits-none-simplecil")
    assert torch.equal(classifier.scores([image]), classifier.scores([tmp_path / "five.png"]))
    names = [name for name, _ in classifier.predict([image], top=99)[0]]
    assert sorted(names) == sorted(few_digits.class_names)


def test_grey_and_transparent_images_of_any_size_are_taken(few_digits, tmp_path: Path) -> None:
    run(tmp_path, tuner=["none"])
    classifier = classifiers.load(tmp_path)
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        assert classifier.scores([Image.new(mode, (50, 20))]).isfinite().all()


@pytest.mark.parametrize(("save", "there"), [("first", [1]), ("all", [1, 2]), ("none", [])])
def test_what_is_kept(save: str, there: list[int], few_digits, tmp_path: Path) -> None:
    run(tmp_path, tuner=["none"], save=save)
    names = sorted(path.name for path in (tmp_path / "digits-none-simplecil").glob("*.safetensors"))
    assert names == [f"classifier-seed{seed}.safetensors" for seed in there]


@pytest.mark.usefixtures("few_digits")
def test_a_classifier_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run(tmp_path, tuner=["none"], method=["simplecil", "ranpac"])
    with pytest.raises(FileNotFoundError, match=r"several trained classifiers.*none-ranpac.*none-simplecil"):
        classifiers.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained classifier of seed 2"):
        classifiers.load(tmp_path / "digits-none-ranpac", seed=2)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        classifiers.load(tmp_path / "nowhere")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(BrokenImage, match=r"broken\.png"):
        classifiers.load(tmp_path / "digits-none-ranpac").predict([tmp_path / "broken.png"])


def test_a_classifier_is_shown_in_three_lines() -> None:
    classes = ["heron", "x" * 1000, "\x1b[31m", "d", "e"]
    classifier = classifiers.Classifier(
        torch.nn.Linear(3, 2),
        methods.create("simplecil"),
        classes,
        RandomCrops(8),
        (0,) * 3,
        (1,) * 3,
    )
    lines = repr(classifier).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 100
    assert lines[0] == r"Classifier of 5 classes: heron, xxxxxxxxxxxxx…xxxxxx, \x1b[31m, d, ..."
    assert lines[1] == "  method: SimpleCIL"
    assert lines[2] == "  backbone: Linear, 8 parameters, float32 on cpu"
