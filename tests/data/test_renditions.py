"""The renditions: what their classes are, what a rendition does, and that every image is a function of its place."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
import torch
from characters import HELD_OUT, script
from torch import Tensor

from mist_ext.data import load, renditions
from mist_ext.data.draws import image_draws
from mist_ext.data.image_sets import DrawnImages
from mist_ext.data.renditions import ASSETS, DRAWS, FINE, RENDITIONS, draw, make
from mist_ext.data.source import Source

STREAMS = {"renditions": {"HEBREW", "GEORGIAN", "TIFINAGH", "ETHIOPIC"}, "renditions_dev": {"THAI", "ARMENIAN"}}


@pytest.fixture(scope="module")
def source() -> Source:
    return load("renditions_dev")


def bitmaps(name: str) -> Tensor:
    with np.load(ASSETS / f"{name}.npz", allow_pickle=False) as asset:
        return torch.from_numpy(asset["bitmaps"])


@pytest.mark.parametrize("name", STREAMS)
def test_the_classes_are_letters_of_scripts_that_no_backbone_was_shown(name: str) -> None:
    with np.load(ASSETS / f"{name}.npz", allow_pickle=False) as asset:
        characters = [chr(code) for code in asset["code_points"]]
    assert len(set(characters)) == 100
    assert {script(character) for character in characters} == STREAMS[name] <= set(HELD_OUT)
    assert all(unicodedata.category(character)[0] == "L" for character in characters)
    assert bitmaps(name).shape == (100, 8, 48, 48)
    assert (ASSETS / f"{name}.npz").stat().st_size < 5e5


def test_a_hundred_balanced_classes_in_ten_tasks(source: Source) -> None:
    assert len(set(source.class_names)) == 100
    assert source.train.labels.bincount().tolist() == [120] * 100
    assert source.test.labels.bincount().tolist() == [20] * 100
    assert source.train.pixels.shape == (12000, 3, 32, 32)
    assert source.tasks == 10


def test_an_image_depends_on_its_own_draws_and_ink_alone() -> None:
    draws = torch.rand(24, DRAWS, generator=torch.Generator().manual_seed(0))
    ink = bitmaps("renditions_dev")[:24, 0].float() / 255
    together = draw(ink, draws)
    assert torch.equal(draw(ink[5:6], draws[5:6])[0], together[5])
    assert torch.equal(draw(ink.flip(0), draws.flip(0)), together.flip(0))


def test_parts_and_seeds_have_other_images() -> None:
    some = bitmaps("renditions_dev")[:3]
    images = [make(some, seed, part, 2).pixels for seed, part in ((1, 0), (1, 1), (2, 0))]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert torch.equal(make(some, 1, 0, 1).pixels, images[0][::2])  # more images leave the first as they are


def test_renditions_again_has_the_same_letters_in_other_images() -> None:
    once, again = load("renditions"), load("renditions_again")
    assert (again.name, again.class_names, again.tasks) == ("renditions_again", once.class_names, 10)
    for part in ("train", "test"):
        ours, theirs = getattr(again, part), getattr(once, part)
        assert torch.equal(ours.labels, theirs.labels)
        a, b = (images.subset(torch.arange(0, len(ours), 11)) for images in (ours, theirs))
        assert (a.pixels != b.pixels).flatten(1).any(1).all()


def test_fewer_images_are_drawn_alone_and_look_the_same() -> None:
    drawn: list[int] = []

    def counted(positions: Tensor) -> Tensor:
        drawn.extend(positions.tolist())
        return positions[:, None, None, None].expand(-1, 3, 2, 2).to(torch.uint8)

    images = DrawnImages(counted, torch.arange(20) % 4)
    some = images.subset(torch.arange(20) % 2 == 1).subset(torch.tensor([0, 2, 3]))
    assert not drawn
    assert some.labels.tolist() == [1, 1, 3]
    assert [int(image[0, 0, 0] * 255) for image, _ in some] == [1, 5, 7] == drawn
    assert [int(image[0, 0, 0] * 255) for image, _ in images] == [*range(20)]
    assert torch.equal(images.subset(torch.tensor([1, 5, 7])).pixels, some.pixels)
    assert len(drawn) == 23  # each once


def test_every_class_comes_in_every_rendition(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(RENDITIONS, 0)

    def counted(name: str) -> Callable[..., Tensor]:
        def rendition(ink: Tensor, *rest: Tensor) -> Tensor:
            counts[name] += len(ink)
            return ink

        return rendition

    monkeypatch.setattr(renditions, "RENDITIONS", {name: counted(name) for name in RENDITIONS})
    for label in range(3):
        counts.update(dict.fromkeys(counts, 0))
        rows = [image_draws(2512, 0, label, sample, DRAWS) for sample in range(40)]
        draw(torch.rand(40, 48, 48), torch.from_numpy(np.stack(rows)))
        assert sum(counts.values()) == 40
        assert min(counts.values()) > 0


@pytest.mark.parametrize("name", RENDITIONS)
def test_a_rendition_shows_the_character_and_not_as_a_filled_one(name: str) -> None:
    ink = torch.zeros(6, FINE, FINE)
    ink[:, 12:52, 20:30] = 1  # a bar
    drawing = torch.Generator().manual_seed(1)
    stroke = RENDITIONS[name](ink, torch.rand(6, 6, generator=drawing), torch.rand(6, FINE, FINE, generator=drawing))
    assert stroke.shape == ink.shape
    assert stroke.abs().max() <= 1.001
    far = torch.ones_like(ink, dtype=torch.bool)
    far[:, 2:62, 10:40] = False
    assert stroke[far].abs().max() < 0.05  # nothing far from the bar
    assert (stroke.abs() > 0.3).flatten(1).sum(1).min() > 60  # what can be seen of it
    assert (stroke - ink).abs().mean(dim=(1, 2)).min() > 0.005
