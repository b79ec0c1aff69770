"""An interrupted run goes on where its folder, its images or its weights have been moved; their content decides."""

from __future__ import annotations

import io
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from miniatures import class_folders
from rich.console import Console
from safetensors.torch import load_file, save_file

from mist_ext import backbones, cli
from mist_ext.config import Config
from mist_ext.runs import benchmark
from mist_ext.runs.interruption import Checkpointer, Interrupted

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Class folders: in two parts, or one tree of which a share is held out."""
    folder = tmp_path / "photographs"
    if getattr(request, "param", "two parts") == "two parts":
        class_folders(folder, NAMES, {"train": 6, "test": 3})
    else:
        class_folders(tmp_path / "made", NAMES, {"all": 9})
        shutil.move(tmp_path / "made" / "all", folder)
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "weights" / "mine.safetensors"
    file.parent.mkdir()
    shutil.copy(backbones.EMBEDDED["vit_nano"].weights, file)
    return file


def options(folder: Path, images: Path, **more) -> Config:
    given = {"tuner": ["mist"], "method": ["simplecil"], "seeds": [1], "classes_per_task": 2, "workers": 0}
    return Config(out=str(folder), data=f"folder:{images}", **{"epochs": 2, "save": "all", **given, **more})


def run(given: Config) -> None:
    benchmark.run(given, Console(file=io.StringIO()))


def stopped(given: Config, monkeypatch: pytest.MonkeyPatch, call: int = 4) -> None:
    original, calls = Checkpointer.save_if_due, iter(range(1000))

    def counted(self: Checkpointer) -> None:
        if next(calls) == call:
            self._stop = signal.SIGTERM
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", counted)
        with pytest.raises(Interrupted):
            run(given)


def go_on(folder: Path, **changes) -> None:
    benchmark.resume(folder, Console(file=io.StringIO()), **changes)


def found(folder: Path) -> tuple[dict[str, torch.Tensor], list]:
    """The classifier, and what was recorded; the data set's first name is that of the experiment's folder."""
    experiment = folder / "folder-photographs-mist-simplecil"
    (one,) = json.loads((experiment / "results.json").read_text())["runs"]
    return load_file(experiment / "classifier-seed1.safetensors"), [
        one["accuracy_matrix"],
        one["tasks"][-1]["selection"],
    ]


def assert_same(ours: Path, theirs: Path) -> None:
    (first, recorded), (second, expected) = found(ours), found(theirs)
    assert recorded == expected
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert len(list(ours.glob("folder-*"))) == 1


@pytest.mark.parametrize("images", ["two parts", "one tree"], indirect=True)
def test_everything_may_be_moved(images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(options(tmp_path / "whole", images, weights=str(weights)))
    stopped(options(tmp_path / "before", images, weights=str(weights)), monkeypatch)
    out, photos, file = (
        tmp_path / "after",
        tmp_path / "elsewhere" / "pictures",
        tmp_path / "elsewhere" / "w.safetensors",
    )
    photos.parent.mkdir()
    shutil.move(tmp_path / "before", out)
    shutil.move(images, photos)
    shutil.move(weights, file)
    with pytest.raises(FileNotFoundError, match=r"photographs, which the run .* is not there; .* --data folder:NEW"):
        go_on(out)
    with pytest.raises(FileNotFoundError, match=r"mine.safetensors, which the run .* is not there; .* --weights NEW"):
        go_on(out, data=f"folder:{photos}")
    monkeypatch.chdir(photos.parent)
    arguments = ["run", "--resume", str(out), "--data", f"folder:{photos.name}", "--weights", file.name]
    assert cli.main(arguments) == 0
    assert_same(out, tmp_path / "whole")


def test_other_images_in_another_place_are_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "others", NAMES, {"train": 5, "test": 3})
    for call, every in ((4, "5min"), (0, "never")):  # with a checkpoint, and without any
        out = tmp_path / every
        stopped(options(out, images, checkpoint_every=every), monkeypatch, call)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=r"it has 20 training and 12 test .* it had 24 training and 12 test"):
            go_on(out, data=f"folder:{tmp_path / 'others'}")
        with pytest.raises(ValueError, match="data is 'digits', was 'folder:"):
            go_on(out, data="digits")
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_weights_are_refused(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(options(tmp_path / "out", images, weights=str(weights)), monkeypatch)
    other = load_file(weights)
    other["norm.bias"] += 1e-3
    save_file(other, tmp_path / "other.safetensors")
    for given in (tmp_path / "other.safetensors", weights):  # elsewhere, and in the same place
        with pytest.raises(ValueError, match="weights are not those that the run was begun with: their digest is"):
            go_on(tmp_path / "out", weights=str(given))
        shutil.copy(tmp_path / "other.safetensors", weights)
    with pytest.raises(ValueError, match="weights is 'pretrained', was"):
        go_on(tmp_path / "out", weights="pretrained")


def test_a_relative_path_is_the_same_as_its_whole(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(options(tmp_path / "out", images), monkeypatch)
    monkeypatch.chdir(tmp_path)
    go_on(Path("out"), data="folder:photographs")
    assert found(tmp_path / "out")
