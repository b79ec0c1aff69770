"""The glyphs source: what its classes are, and that every image is a pure function of its place."""

import string
import unicodedata

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from make_glyphs import LIMIT, similarity
from PIL import Image

from mist_ext.data import load
from mist_ext.data.distort import DRAWS, distort, soften
from mist_ext.data.fonts import render
from mist_ext.data.glyphs import ASSET, make

LATIN = [render(c, font) for font in ("DejaVuSans.ttf", "DejaVuSerif.ttf") for c in string.ascii_letters]
DIGITS = [render(c, "DejaVuSans.ttf") for c in string.digits]


@pytest.fixture(scope="module")
def source():
    return load("glyphs")


@pytest.fixture(scope="module")
def asset():
    with np.load(ASSET, allow_pickle=False) as stored:
        return dict(stored)


def test_a_hundred_balanced_classes_in_ten_tasks(source):
    assert len(source.class_names) == len(set(source.class_names)) == 100
    assert torch.equal(torch.bincount(source.train.labels), torch.full((100,), 40))
    assert torch.equal(torch.bincount(source.test.labels), torch.full((100,), 20))
    assert source.train.pixels.shape == (4000, 3, 32, 32)
    assert source.tasks == 10


def test_no_class_is_a_latin_letter_or_a_digit_by_name(asset):
    for code in asset["code_points"].tolist():
        name = unicodedata.name(chr(code))
        assert not any(word in name for word in ("LATIN", "DIGIT", "NUMERAL")), name
        assert not unicodedata.normalize("NFKC", chr(code)).isascii(), name


def test_no_class_looks_like_a_latin_letter_or_a_digit(asset):
    assert asset["latin_similarity"].max() < LIMIT
    for code, styles in zip(asset["code_points"], asset["bitmaps"], strict=True):
        assert similarity(Image.fromarray(styles[0]), LATIN + DIGITS) < LIMIT, f"U+{code:04X}"


@pytest.mark.parametrize("character", ["\u0410", "\u03bf", "\u0406", "\u042f", "\u05e1", "\u0417"])
def test_the_measure_recognises_look_alikes_of_other_scripts(character):
    assert similarity(render(character, "DejaVuSans.ttf"), LATIN + DIGITS) >= LIMIT


def test_no_two_classes_look_the_same(asset):
    flat = asset["bitmaps"][:, 0].reshape(100, -1).astype(np.float64)
    alike = np.corrcoef(flat)
    np.fill_diagonal(alike, 0)
    assert alike.max() < LIMIT


def test_an_image_depends_on_its_part_class_and_number_alone(source, asset):
    bitmaps = torch.from_numpy(asset["bitmaps"])
    rows = torch.tensor([3999, 0, 1234])
    alone = make(bitmaps, 0, source.train.labels[rows], rows % 40)
    assert torch.equal(alone, source.train.pixels[rows])
    assert not torch.equal(make(bitmaps, 1, source.train.labels[rows], rows % 40), alone)


def test_no_image_is_repeated(source):
    together = torch.cat([source.train.pixels, source.test.pixels]).flatten(1)
    assert len({row.tobytes() for row in together.numpy()}) == 6000


def test_soft_distortion_leaves_a_character_upright_and_uncovered(asset):
    ink = torch.from_numpy(asset["bitmaps"][:20, 0]).float() / 255
    drawn = torch.rand(20, DRAWS, generator=torch.Generator().manual_seed(0))
    grey = distort(ink, soften(drawn, 0.0)).float().mean(dim=1)
    shrunk = F.interpolate(ink[:, None], size=(26, 26), mode="area").squeeze(1)  # the middle of the sizes
    expected = F.pad(shrunk, (3, 3, 3, 3))
    alike = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(grey, expected, strict=True)]
    assert min(alike) > 0.8
    assert torch.equal(soften(drawn, 1.0), drawn)


def test_draws_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=rf"expected \(2, {DRAWS}\)"):
        distort(torch.zeros(2, 48, 48), torch.zeros(2, 7))
