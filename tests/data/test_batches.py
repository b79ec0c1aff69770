"""Batches hold a task's images in an order that follows from a key."""

from __future__ import annotations

import functools
import operator

import torch
from numbered_images import number, source
from torch.utils.data import Subset

from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.data.stream import Stream
from mist_ext.data.task_images import TaskImages


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
