"""An image that cannot be decoded stops a run before its task, which can go on with or without it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import miniatures
import numpy as np
import pytest
from rich.console import Console

from mist_ext.config import Config
from mist_ext.data.decode import BrokenImage
from mist_ext.runs import benchmark

OPTIONS = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "epochs": 2, "classes_per_task": 2, "workers": 0}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "my images"
    miniatures.class_folders(folder, [f"class {label}" for label in range(6)], {"train": 6, "test": 3})
    return folder


def run(images: Path, out: Path, **options) -> str:
    output = io.StringIO()
    config = Config(data=f"folder:{images}", out=str(out), **OPTIONS, **options)
    benchmark.run(config, Console(file=output, width=300))
    return output.getvalue()


def results(out: Path) -> list[dict]:
    (file,) = out.glob("*/results.json")
    return json.loads(file.read_text())["runs"][0]["tasks"]


def broken(images: Path) -> tuple[Path, bytes]:
    """An image of the second task, cut in half, and what it was."""
    order = np.random.RandomState(1).permutation(6)  # the stream's
    path = sorted((images / "train" / f"class {order[2]}").iterdir())[3]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path, content


@pytest.mark.slow
def test_the_run_stops_before_the_task_and_goes_on_once_the_image_is_replaced(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "whole")
    path, content = broken(images)
    with pytest.raises(BrokenImage, match="1 training images of task 2 cannot be decoded") as error:
        run(images, tmp_path / "out")
    assert str(path) in str(error.value)
    assert "mist run --resume" in str(error.value)
    assert len(results(tmp_path / "out")) == 1
    path.write_bytes(content)
    benchmark.resume(tmp_path / "out", Console(file=io.StringIO()))
    accuracies = [[task["accuracy_per_class"] for task in results(tmp_path / name)] for name in ("whole", "out")]
    assert accuracies[0] == accuracies[1]


def test_or_does_without_it_and_says_how_many(images: Path, tmp_path: Path) -> None:
    path, _ = broken(images)
    output = run(images, tmp_path / "out", skip_broken=True)
    assert output.count("1 training images of task 2 are left out") == 1
    assert str(path) in output
    assert len(results(tmp_path / "out")) == 3


def test_a_stopped_run_goes_on_without_it(images: Path, tmp_path: Path) -> None:
    broken(images)
    with pytest.raises(BrokenImage):
        run(images, tmp_path / "out")
    benchmark.resume(tmp_path / "out", Console(file=io.StringIO()), skip_broken=True)
    assert len(results(tmp_path / "out")) == 3


def test_a_class_of_which_nothing_is_left_is_refused(images: Path, tmp_path: Path) -> None:
    for path in (images / "test" / "class 3").iterdir():
        path.write_bytes(b"")
    with pytest.raises(BrokenImage, match="class 'class 3' has no test image left that can be decoded"):
        run(images, tmp_path / "out", skip_broken=True)
