"""The digits source: its size, its split, and that it is the same everywhere."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mist_ext.data import SOURCES, load


@pytest.fixture(scope="module")
def source():
    return load("digits")


def test_every_digit_is_in_exactly_one_part(source):
    assert len(source.train) + len(source.test) == 1797
    together = torch.cat([source.train.pixels, source.test.pixels]).flatten(1)
    # The data set itself holds no two identical images, so a shared row would show as a repeat.
    assert len(np.unique(together.numpy(), axis=0)) == len(np.unique(load_digits().data, axis=0))


def test_the_test_part_is_thirty_percent_of_every_class(source):
    total = torch.bincount(torch.from_numpy(load_digits().target))
    share = torch.bincount(source.test.labels) / total
    assert torch.all((share - 0.3).abs() < 0.5 / total)


def test_images_are_rgb_in_the_unit_range_with_white_ink_on_black(source):
    image, label = source.train[0]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert isinstance(label, int)
    assert image.min() == 0
    assert 0.8 < source.train.pixels.max() / 255 <= 1
    assert source.train.pixels[:, :, 0, 0].float().mean() < 10


def test_labels_match_the_digits_they_name(source):
    small = torch.nn.functional.avg_pool2d(source.train.pixels[:, :1].float(), 4).flatten(1)
    originals = torch.from_numpy(load_digits().data).float() * (255 / 16)
    nearest = torch.cdist(small, originals).argmin(dim=1)
    agree = torch.from_numpy(load_digits().target)[nearest] == source.train.labels
    assert agree.float().mean() > 0.98
    assert source.class_names == tuple("0123456789")
    assert source.tasks == 2


@pytest.mark.parametrize(("given", "meant"), [("digit", "digits"), ("Glyphs", "glyphs"), ("glyph", "glyphs")])
def test_a_misspelt_data_set_is_met_with_the_nearest_name(given, meant):
    with pytest.raises(ValueError, match=f"unknown data set '{given}'; did you mean '{meant}'"):
        load(given)


def test_a_name_like_none_is_met_with_all_names():
    with pytest.raises(ValueError, match=f"choose one of: {', '.join(sorted([*SOURCES, 'folder:PATH']))}"):
        load("zzz")


def test_the_file_and_the_function_of_scikit_learn_give_the_same(source, monkeypatch):
    monkeypatch.setattr("mist_ext.data.digits.find_spec", lambda name: None)
    assert load("digits").fingerprint() == source.fingerprint()


def test_neither_scikit_learn_nor_torchvision_is_imported():
    program = (
        "import sys; from mist_ext.data import load; load('digits'); print({'sklearn', 'torchvision'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
