"""The second view of a batch: what is drawn for it, and that its crop is the published code's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from mist_ext.tuners.views import TwoViews, crop, draw_boxes


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_first_half_is_the_input_and_the_second_is_another_view() -> None:
    x = images(20)
    both = TwoViews()(x, seed=1)
    assert both.shape == (40, 3, 16, 16)
    assert torch.equal(both[:20], x)
    assert (both[20:] != x).flatten(1).any(dim=1).all()
    assert both.min() >= 0
    assert both.max() <= 1


def test_views_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    views, x = TwoViews(), images(8)
    before = torch.random.get_rng_state()
    first, again, other = views(x, 1), views(x, 1), TwoViews()(x, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(first, views(x, 1))
    assert not torch.equal(first[8:], other[8:])


def test_every_sample_is_augmented_on_its_own() -> None:
    x = images(1).repeat(32, 1, 1, 1)
    augmented = TwoViews()(x, seed=3)[32:]
    different = (augmented.flatten(1)[:, None] != augmented.flatten(1)[None]).any(dim=2)
    assert different[~torch.eye(32, dtype=torch.bool)].all()


def test_flips_greys_and_crops_come_as_often_as_they_should() -> None:
    n, side = 2000, 32
    ramp = torch.linspace(0.2, 0.8, side).expand(n, 3, side, side)
    tinted = ramp * torch.tensor([1.0, 0.8, 0.5])[:, None, None]
    augmented = TwoViews()(tinted, seed=4)[n:]
    rise = augmented[:, 0, 16, 20] - augmented[:, 0, 16, 12]
    grey = torch.isclose(augmented[:, 0], augmented[:, 2], atol=1e-4).flatten(1).all(dim=1)
    assert abs((rise < 0).double().mean() - 0.5) < 4 * math.sqrt(0.25 / n)
    assert abs(grey.double().mean() - 0.25) < 4 * math.sqrt(0.1875 / n)
    # The crop's width in parts of the image's: the area is 0.3 to 1, the ratio 3/4 to 4/3.
    width = rise[~grey].abs() / (8 * 0.6 / (side - 1))
    narrowest = math.sqrt(0.3 * 3 / 4)
    assert 0.93 * narrowest < width.min() < 1.1 * narrowest
    assert 0.95 < width.max() < 1.001


def published_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Crop as the published code does: through the matrix of an affine map, and torch's grid of it."""
    height, width = images.shape[-2:]
    theta = torch.zeros(len(images), 2, 3)
    for row, (left, top, across, down) in enumerate(boxes.tolist()):
        theta[row] = torch.tensor(
            [[across / width, 0, (2 * left + across) / width - 1], [0, down / height, (2 * top + down) / height - 1]]
        )
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_crop_is_that_of_the_published_code(size: tuple[int, int]) -> None:
    x = torch.rand(200, 3, *size, generator=torch.Generator().manual_seed(5))
    boxes = draw_boxes(200, size, (0.3, 1.0), (3 / 4, 4 / 3), torch.Generator().manual_seed(6))
    assert (crop(x, boxes) - published_crop(x, boxes)).abs().max() < 1e-5


def test_the_edges_of_a_box_become_those_of_the_view() -> None:
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    assert torch.equal(crop(x, torch.tensor([[0.0, 0, 8, 8]])), x)
    # Four columns from the third on, each spread over two: a quarter of a pixel to either side of its centre.
    expected = torch.tensor([2, 2, 3, 3, 4, 4, 5, 5]) + torch.tensor([-0.25, 0.25] * 4)
    assert torch.allclose(crop(x, torch.tensor([[2.0, 0, 4, 8]])), expected.expand(1, 1, 8, 8))
    # Half a pixel further; at the image's edges pixels are mirrored.
    assert torch.allclose(crop(x, torch.tensor([[2.5, 0, 4, 8]])), (expected + 0.5).expand(1, 1, 8, 8))
    assert torch.equal(crop(x, torch.tensor([[0.0, 0, 4, 8]]))[0, 0, 0, :2], torch.tensor([0.0, 0.25]))


def test_boxes_lie_within_the_image_and_begin_anywhere() -> None:
    left, top, width, height = draw_boxes(5000, (24, 32), (0.3, 0.9), (3 / 4, 4 / 3), torch.Generator()).T
    for start, length, pixels in ((left, width, 32), (top, height, 24)):
        assert torch.equal(length, length.round())
        assert torch.equal(2 * start, (2 * start).round())
        assert set((2 * start[length == 20]).int().tolist()) == set(range(2 * (pixels - 20) + 1))
        assert (start + length).max() == pixels
    area = width * height / (24 * 32)
    assert 0.3 - 0.04 < area.min() < 0.3 + 0.04
    assert 0.9 - 0.04 < area.max() < 0.9 + 0.04
    assert 0.7 < (width / height).min() < 0.8
    assert 1.25 < (width / height).max() < 1.42


def test_an_image_that_no_box_fits_is_taken_whole() -> None:
    boxes = draw_boxes(3, (10, 100), (0.9, 1.0), (1.0, 1.01), torch.Generator())
    assert boxes.tolist() == [[0, 0, 100, 10]] * 3


@pytest.mark.gpu
def test_a_gpu_makes_the_same_views() -> None:
    x = images(64)
    assert (TwoViews()(x.cuda(), 3).cpu() - TwoViews()(x, 3)).abs().max() < 1e-5
