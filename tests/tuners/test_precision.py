"""What tuning gains over the frozen backbone on digits, in every precision.

All ten classes are one task, so the gain is that of tuning alone. Class means of 20 images a class classify the test
images, on average over 40 such choices: means of all images leave too few errors for a gain to be told from chance.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fewer_images import every_nth
from torch import Tensor, nn

from mist_ext import backbones, data, methods, tuners
from mist_ext.data.batches import Batches
from mist_ext.data.stream import Stream, Task
from mist_ext.data.task_images import TaskImages
from mist_ext.tuners.tuner import TuningOptions

SHOTS, CHOICES, SEED = 20, 40, 1


def embedded() -> nn.Module:
    return backbones.create("vit_nano", "pretrained")


@torch.no_grad()
def features(backbone: nn.Module, images: TaskImages) -> Tensor:
    backbone.eval()
    dtype = next(backbone.parameters()).dtype
    return torch.cat([backbone(pixels.to(dtype)).float() for pixels, _ in Batches(images, 256, None)])


def accuracy(backbone: nn.Module, task: Task) -> float:
    """In percent."""
    train, test = features(backbone, task.train), features(backbone, task.test)
    drawing = torch.Generator().manual_seed(0)
    of_class = [(task.train.labels == label).nonzero().flatten() for label in task.classes]
    total = 0.0
    for _ in range(CHOICES):
        chosen = torch.cat([places[torch.randperm(len(places), generator=drawing)[:SHOTS]] for places in of_class])
        learner = methods.create("simplecil")
        learner.learn(train[chosen], task.train.labels[chosen])
        total += float((learner.predict(test) == task.test.labels).double().mean())
    return 100 * total / CHOICES


@pytest.fixture(scope="module")
def task() -> Task:
    (only,) = Stream(replace(data.load("digits"), train=every_nth(6).train), 10, SEED)
    return only


def gain(task: Task, precision: str) -> float:
    """Points of accuracy, after two epochs that follow one that scores."""
    backbone = embedded()
    before = accuracy(backbone, task)  # of the frozen backbone in float32
    tuner = tuners.create("mist", backbone, TuningOptions(precision=precision, epochs=3, batch_size=12, lr=8e-3), SEED)
    tuner.tune(task.train)
    return accuracy(backbone, task) - before


@pytest.fixture(scope="module")
def full_gain(task: Task) -> float:
    return gain(task, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "bf16-pure"])
def test_16_bits_keep_at_least_four_fifths_of_the_gain(task: Task, full_gain: float, precision: str) -> None:
    assert full_gain > 2
    assert gain(task, precision) >= 0.8 * full_gain
