"""The class-incremental stream: the published class order, and a partition of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numbered_images import number, source

from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of


def test_the_class_order_is_the_published_one() -> None:
    np.random.seed(1993)
    published = np.random.permutation(100).tolist()
    assert Stream(source(), None, 1993).class_order == published
    assert published[:5] == [68, 56, 78, 8, 23]
    assert Stream(source(), None, 1994).class_order != published


def test_the_order_leaves_numpy_s_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    Stream(source(), None, 1993)
    assert np.random.rand() == expected


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(None, [10] * 10), (10, [10] * 10), (30, [30, 30, 30, 10]), (100, [100]), (1, [1] * 100), (99, [99, 1])],
)
def test_the_last_task_takes_what_remains(size: int | None, sizes: list[int]) -> None:
    stream = Stream(source(), size, 1993)
    assert len(stream) == len(sizes)
    assert [len(task.classes) for task in stream] == sizes
    assert [task.number for task in stream] == list(range(len(sizes)))
    assert [position for task in stream for position in task.classes] == list(range(100))


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("size", [10, 30])
def test_every_image_is_in_the_one_task_of_its_class(part: str, size: int) -> None:
    made = source()
    stream = Stream(made, size, 1993)
    images = getattr(made, part)
    expected = {number(images[i][0]): stream.class_order.index(images[i][1]) for i in range(len(images))}
    seen: dict[int, int] = {}
    for task in stream:
        own = getattr(task, part)
        assert own.labels.tolist() == [own[i][1] for i in range(len(own))]
        for i in range(len(own)):
            image, label = own[i]
            assert label in task.classes
            assert number(image) not in seen
            seen[number(image)] = label
    assert seen == expected


@pytest.mark.parametrize("size", [0, -1, 101])
def test_an_impossible_task_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"classes_per_task is {size}, expected 1 to 100, the classes of 'made'"):
        Stream(source(), size, 1993)


def test_uneven_classes_are_spread_as_evenly_as_they_go() -> None:
    assert [len(task.classes) for task in Stream(source(classes=7, tasks=3), None, 0)] == [3, 3, 1]


def test_images_are_resampled_to_the_size_that_the_backbone_takes() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(4, 3, 1, 1)
    images = Images(pixels, torch.tensor([0, 0, 1, 1]))
    source = Source("made", ("a", "b"), images, images, tasks=2)
    stream = Stream(source, None, 1993, views_of(source, 48))
    image, _ = stream.tasks[0].train[0]
    assert image.shape == (3, 48, 48)
    torch.testing.assert_close(image.mean(), images[0][0].mean(), atol=1e-3, rtol=0)
    same = Stream(source, None, 1993, views_of(source, 16))
    assert torch.equal(same.tasks[0].train[0][0], images[0][0])


@pytest.mark.parametrize(
    ("first", "size", "sizes"),
    [(50, 10, [50, *[10] * 5]), (40, 25, [40, 25, 25, 10]), (100, 10, [100]), (1, 99, [1, 99])],
)
def test_the_first_task_may_have_another_size(first: int, size: int, sizes: list[int]) -> None:
    stream = Stream(source(), size, 1993, first_task_classes=first)
    assert [len(task.classes) for task in stream] == sizes
    assert [position for task in stream for position in task.classes] == list(range(100))
    assert stream.class_order == Stream(source(), None, 1993).class_order


@pytest.mark.parametrize("first", [0, 101])
def test_an_impossible_first_task_is_refused(first: int) -> None:
    with pytest.raises(ValueError, match=f"first_task_classes is {first}, expected 1 to 100"):
        Stream(source(), 10, 1993, first_task_classes=first)
