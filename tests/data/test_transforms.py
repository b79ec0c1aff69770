"""The published transforms, bit for bit: torchvision's compositions on PIL images, up to ToTensor."""

from __future__ import annotations

import resource

import miniatures
import pytest
import torch
from PIL import Image
from torchvision import transforms

from mist_ext.data.image_sets import pixels_of
from mist_ext.data.transforms import AsStored, RandomCrops, ResizedCrops, Transform

# As the published code writes them (3 is bicubic). The numbers belong to 224 pixels.
CROPS = [transforms.RandomResizedCrop(224, scale=(0.05, 1.0), ratio=(3 / 4, 4 / 3)), transforms.RandomHorizontalFlip()]
CARS = [transforms.Resize((300, 300), interpolation=3), transforms.RandomCrop(224), transforms.RandomHorizontalFlip()]
EVALUATION = [transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
SIZES = [(500, 375), (224, 224), (32, 32), (81, 301), (1000, 40)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("ours", "published"), [(RandomCrops, CROPS), (ResizedCrops, CARS)])
def test_the_training_view_is_the_published_one(ours: type[Transform], published: list, size: tuple[int, int]) -> None:
    image, theirs = miniatures.picture(7, 0, size), transforms.Compose([*published, transforms.ToTensor()])
    for seed in range(8):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        transform = ours(224)
        got = pixels_of(transform.augment(transform.prepare(image)))
        assert torch.equal(got.to(torch.float32) / 255, expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ours", [RandomCrops, ResizedCrops])
def test_the_view_for_evaluation_is_the_published_one(ours: type[Transform], size: tuple[int, int]) -> None:
    image = miniatures.picture(8, 0, size)
    expected = transforms.Compose([*EVALUATION, transforms.ToTensor()])(image)
    assert torch.equal(pixels_of(ours(224).evaluate(image)).to(torch.float32) / 255, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 50_000), (50_000, 1), (3, 2_000)], ids=str)
@pytest.mark.parametrize("ours", [RandomCrops, ResizedCrops, AsStored])
def test_images_of_any_shape_take_little_memory(ours: type[Transform], size: tuple[int, int]) -> None:
    image, transform = Image.new("RGB", size, "red"), ours(224)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    views = [transform.evaluate(image), transform.augment(transform.prepare(image))]
    assert [view.size for view in views] == [(224, 224)] * 2
    assert all(view.getpixel((112, 112)) == (255, 0, 0) for view in views)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # kB
