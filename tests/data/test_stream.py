"""The class-incremental stream: the published class order, a partition of the images, and batches in a fixed order."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from mist_ext.data.source import Images, Source
from mist_ext.data.stream import Batches, Stream, TaskImages, views_of


def source(classes: int = 100, per_class: int = 3, tasks: int = 10) -> Source:
    """Every image's pixels hold its number, so that it is recognised anywhere."""

    def part(first: int) -> Images:
        count = classes * per_class
        numbers = torch.arange(first, first + count)
        pixels = torch.stack([numbers % 256, numbers // 256, numbers * 0], dim=1).to(torch.uint8)[:, :, None, None]
        return Images(pixels, torch.randperm(count, generator=torch.Generator().manual_seed(first)) % classes)

    names = tuple(f"class {number:03}" for number in range(classes))
    return Source("made", names, part(0), part(classes * per_class), tasks)


def number(image: torch.Tensor) -> int:
    low, high, _ = (image.flatten() * 255).round().int().tolist()
    return low + 256 * high


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


def order(images: Images, *key: int | str) -> list[list[int]]:
    return [[number(image) for image in pixels] for pixels, _ in Batches(images, 8, key or None)]


def test_batches_hold_every_image_once_and_the_last_one_is_short() -> None:
    images = source(classes=10).train
    for shuffled in (order(images), order(images, 1, "order", 0, 3)):
        assert [len(batch) for batch in shuffled] == [8, 8, 8, 6]
        assert sorted(functools.reduce(operator.iadd, shuffled, [])) == list(range(30))
    assert functools.reduce(operator.iadd, order(images), []) == list(range(30))


def test_a_batch_s_labels_are_its_images_own() -> None:
    images = source(classes=10).train
    for pixels, labels in Batches(images, 8, (1, "order")):
        assert pixels.dtype == torch.float32
        assert labels.tolist() == [int(images.labels[number(image)]) for image in pixels]


def test_the_order_follows_its_key_alone() -> None:
    images = source(classes=10).train
    torch.manual_seed(1)
    first = order(images, 1, "order", 0, 3)
    torch.manual_seed(2)
    assert order(images, 1, "order", 0, 3) == first
    for other in ((2, "order", 0, 3), (1, "views", 0, 3), (1, "order", 1, 3), (1, "order", 0, 4)):
        assert order(images, *other) != first


def test_a_subset_of_a_task_is_like_the_task() -> None:
    (task,) = Stream(source(classes=4), 4, 1993)
    pixels, labels = next(iter(Batches(Subset(task.train, range(0, 12, 2)), 8, None)))
    assert pixels.dtype == torch.float32
    assert labels.tolist() == task.train.labels[::2].tolist()
    assert torch.equal(pixels, torch.stack([task.train[i][0] for i in range(0, 12, 2)]))


def test_tasks_joined_have_all_images_but_those_that_were_left_out() -> None:
    tasks = Stream(source(), None, 1993).tasks[:3]
    tasks[1].train.leave_out([0, 4])
    joint = TaskImages.joined([task.train for task in tasks])
    assert (joint.classes, len(joint)) == (range(30), 88)
    apart = [image for task in tasks for image in task.train]
    assert [label for _, label in joint] == [label for _, label in apart]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(joint, apart, strict=True))
    assert len(tasks[0].train) == 30


def test_making_an_order_leaves_the_global_generator_alone() -> None:
    images = source(classes=10).train
    before = torch.random.get_rng_state()
    Batches(images, 8, (1, "order"))
    assert torch.equal(before, torch.random.get_rng_state())


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
