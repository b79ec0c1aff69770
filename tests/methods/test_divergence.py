"""Training of a method that diverges ends at its batch, named with the option to lower; its losses are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mist_ext import backbones
from mist_ext.data.image_sets import Images
from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.methods import METHODS, create, named
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import Recipe, fit
from mist_ext.tuners.divergence import Diverged
from mist_ext.tuners.schedules import constant

TRAINED = [name for name in METHODS if issubclass(named(name), TrainedMethod)]


def images(count: int = 24, classes: int = 3) -> Images:
    drawing = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % classes)


def attached(name: str, **options: Any) -> TrainedMethod:
    method = create(name, epochs=2, batch_size=8, **options)
    assert isinstance(method, TrainedMethod)
    method.attach(backbones.create("vit_nano"))
    return method


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_that_trains_ends_at_the_batch_where_it_diverges(name: str) -> None:
    method = attached(name, lr=1e30)
    message = (
        rf"task 1, {type(method).__name__}, epoch 1 of 2, batch [12] of 3: .*--method-options lr=1e\+29, it was 1e\+30"
    )
    with pytest.raises(Diverged, match=message):
        method.train(images(), range(3))


def test_the_losses_of_every_epoch_are_those_of_the_newest_task() -> None:
    aper, slca = attached("aper_ssf"), attached("slca", draws_per_class=4, alignment_epochs=3)
    found = []
    for method, width in ((aper, 256), (slca, 128)):
        for start in (0, 3):
            task = images()
            task.labels += start
            method.train(task, range(start, start + 3))
            method.learn(torch.randn(12, width), start + torch.arange(12) % 3)
            found.append({phase: len(losses) for phase, losses in method.losses.items()})
    assert found == [{"learn": 2}, {}, {"learn": 2}, {"learn": 2, "align": 3}]  # APER trains on the first task alone


def fitted(values: list[float], rows: bool = False) -> list[float]:
    """The mean losses of training whose losses in the batches of every epoch are given."""
    parameter = nn.Parameter(torch.ones(1))
    batches: Iterable[tuple[Any, Tensor]] = [(torch.tensor(value), torch.zeros(1)) for value in values]

    def loss(value: Tensor, _labels: Tensor) -> Tensor:
        return value + 0 * parameter.sum()

    recipe = Recipe(2, 0.1, 1, schedule=constant)
    share = (lambda step: BatchRows(4, 0, 1)) if rows else None
    return fit(loss, [([parameter], 1.0)], recipe, lambda epoch: batches, (1,), "Plain", 3, share)


@pytest.mark.parametrize("rows", [False, True])
def test_the_mean_loss_of_an_epoch_is_that_of_its_batches(rows: bool) -> None:
    assert fitted([1.0, 2.0, 6.0], rows) == [3.0, 3.0]


@pytest.mark.parametrize(("value", "sign"), [(math.nan, "NaN"), (-math.inf, "infinite")])
def test_task_epoch_and_batch_are_named(value: float, sign: str) -> None:
    where = "task 3, Plain, epoch 1 of 2, batch 3 of 4"
    with pytest.raises(Diverged, match=rf"{where}: the loss is {sign}; lower .*--method-options lr=0\.01, it was 0\.1"):
        fitted([1.0, 2.0, value, 3.0])


def test_an_infinite_gradient_under_a_finite_loss_is_found() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    batch = [(torch.zeros(1), torch.zeros(1))]
    with pytest.raises(Diverged, match=r"batch 1 of 1: its gradient has made weights or scores (NaN|infinite)"):
        fit(
            lambda *_: parameter.abs().sqrt().sum(),  # whose derivative at 0 is infinite, times that of |x|, which is 0
            [([parameter], 1.0)],
            Recipe(1, 0.1, 1),
            lambda epoch: batch,
            (1,),
            "Plain",
            1,
        )


@pytest.mark.parametrize("name", ["ease", "slca", "l2p", "ranpac_ssf"])
@pytest.mark.parametrize(
    ("count", "classes"), [(1, 1), (3, 3), (9, 3)], ids=["one_image", "one_a_class", "last_of_one"]
)
def test_few_images_have_finite_losses(name: str, count: int, classes: int) -> None:
    method = attached(name)
    method.train(images(count, classes), range(classes))
    assert all(map(math.isfinite, method.losses["learn"]))
