"""How a run reads its images, what it says of that, and that its classifier reads alike."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import miniatures
import pytest
import torch
from PIL import Image
from rich.console import Console

from mist_ext import data
from mist_ext.config import Config
from mist_ext.data.batches import Batches
from mist_ext.data.decode import BrokenImage
from mist_ext.data.stream import Stream
from mist_ext.runs import benchmark, classifiers
from mist_ext.runs.context import RunContext

TIMM = {"backbone": "test_vit", "weights": "none"}
CHANNELS = (0.5, 0.5, 0.5)  # mean and std of that model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    miniatures.class_folders(tmp_path / "insects", ["ant", "bee"], miniatures.two_parts("test"))
    return tmp_path / "insects"


def setting(**options) -> tuple[RunContext, str]:
    """What a run works on, and what it said."""
    output = io.StringIO()
    config = Config(**{"tuner": ["none"], "method": ["simplecil"], "workers": 0, **options})
    return RunContext.of(config, Console(file=output, width=200)), output.getvalue()


def test_without_a_published_protocol_channels_are_normalised_as_the_model_has_them(folder: Path) -> None:
    found, said = setting(data=f"folder:{folder}", **TIMM)
    assert found.options.normalize == "model"
    assert "channels are normalised by --normalize model" in said
    views = found.streams(0).tasks[0].train.views
    assert (views.mean, views.std) == (CHANNELS, CHANNELS)
    assert setting(data="digits", **TIMM)[0].options.normalize == "model"
    found, said = setting(data=f"folder:{folder}", normalize="published", **TIMM)
    assert found.options.normalize == "published"
    assert not any(found.streams(0).tasks[0].train.views.mean)
    assert "channels are normalised by --normalize published" in said


def test_without_augmentation_training_images_look_as_test_images_do(folder: Path) -> None:
    drawn, still = (
        setting(data=f"folder:{folder}", augmentation=augmentation, **TIMM)[0].streams(0).tasks[0].train
        for augmentation in ("auto", "none")
    )
    order = (1, "order")
    (pixels, labels), (moved, _) = (next(iter(Batches(images, 100, order))) for images in (still, drawn))
    (plain, in_order) = next(iter(Batches(drawn, 100, None)))
    assert labels.tolist() == in_order[still_order := Batches(still, 100, order).items[0]].tolist()
    assert torch.equal(pixels, plain[still_order])
    assert not torch.equal(moved, pixels)


def test_published_protocols_and_the_embedded_data_keep_theirs(tmp_path: Path) -> None:
    miniatures.cars196(tmp_path)
    found, said = setting(data="cars196", data_root=str(tmp_path), **TIMM)
    assert found.options.normalize == "published"
    assert found.streams(0).tasks[0].train.views.mean == (0.485, 0.456, 0.406)
    assert "channels are normalised by --normalize published" in said
    found, said = setting(data="digits")
    assert found.options.normalize == "published"
    assert said == ""


def test_a_run_says_once_what_is_not_read_and_records_how_images_were(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "ant" / "a.heic").write_bytes(b"x")
    (folder / "train" / "notes.txt").write_text("x")
    output = io.StringIO()
    config = Config(data=f"folder:{folder}", tuner=["none"], method=["simplecil"], seeds=[1, 2], workers=0)
    config.out, config.classes_per_task = str(tmp_path / "out"), 1
    benchmark.run(config, Console(file=output, width=200))
    for text in ("1 images of formats that are not decoded here; convert them (.heic)", "no image's (.txt)"):
        assert output.getvalue().count(text) == 1
    (file,) = (tmp_path / "out").glob("*/results.json")
    recorded = json.loads(file.read_text())["config"]["data"]
    assert recorded["normalize"] == "model"
    assert recorded["layout"].endswith("turned as EXIF says, transparent pixels white")


@pytest.mark.parametrize("as_shown", [True, False])
def test_a_classifier_reads_photos_as_its_run_did(folder: Path, tmp_path: Path, as_shown: bool) -> None:
    config = Config(data=f"folder:{folder}", tuner=["none"], method=["simplecil"], seeds=[1], workers=0)
    config.out = str(tmp_path / "out")
    benchmark.run(config, Console(file=io.StringIO()))
    classifier = classifiers.load(tmp_path / "out")
    assert classifier.as_shown
    classifier.as_shown = as_shown
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = Image.open(folder / "test" / "ant" / "image_3.jpg").convert("RGB")
    upright.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "photo.png", exif=exif)
    expected = classifier.scores([upright if as_shown else upright.transpose(Image.Transpose.ROTATE_180)])
    assert torch.equal(classifier.scores([tmp_path / "photo.png"]), expected)
    assert torch.equal(classifier.scores([Image.open(tmp_path / "photo.png")]), expected)


def test_classifiers_of_published_data_read_as_published(tmp_path: Path) -> None:
    miniatures.cub200(tmp_path)
    source = data.load("cub200", tmp_path)
    assert not source.train.as_shown
    assert not source.train.subset(torch.arange(3)).as_shown
    assert "as published: EXIF orientation and transparency ignored" in source.layout
    assert data.load("digits").train.as_shown


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_spoilt_after_the_check_is_named(folder: Path, workers: int) -> None:
    source = data.load(f"folder:{folder}")
    (task,) = Stream(source, 2, 0)
    task.train.views.workers = workers
    Path(source.train.where(2)).write_bytes(b"")
    with pytest.raises(BrokenImage) as error:
        list(Batches(task.train, 2, None))
    assert str(error.value).startswith(f"{source.train.where(2)} cannot be decoded")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_process_ends_although_an_error_has_left_workers_behind(folder: Path) -> None:
    program = f"""
from mist_ext import data
from mist_ext.data.batches import Batches
from mist_ext.data.stream import Stream, views_of
source = data.load("folder:{folder}")
(task,) = Stream(source, 2, 0, views_of(source, 224, workers=1))
kept = iter(Batches(task.train, 2, None))
next(kept)
raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 7
