"""The published ablations against loops that are written by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.seeding import draw_seed
from mist_ext.tuners import create
from mist_ext.tuners.tuner import TuningOptions

NAMES = ["published_random", "published_magnitude", "published_gradient", "full"]
RATE, LR, CLASSIFIER_LR, MOMENTUM, DECAY, EPOCHS, BATCH = 0.1, 0.05, 0.2, 0.9, 5e-3, 3, 8


class Net(nn.Module):
    """Two layers on 4 x 4 images."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.norm, self.out = nn.Linear(48, 10), nn.LayerNorm(10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.hidden(x.flatten(1)).relu()))


def images() -> Images:
    drawing = torch.Generator().manual_seed(3)
    return Images(torch.randint(0, 256, (20, 3, 4, 4), generator=drawing, dtype=torch.uint8), torch.arange(20) % 4 + 2)


def largest(values: Tensor) -> Tensor:
    """True for the entries that the published quantile selects: n - ceil((n - 1)(1 - rate)) of them."""
    count = values.numel() - math.ceil((values.numel() - 1) * (1 - RATE))
    order = sorted(range(values.numel()), key=lambda i: -float(values.flatten()[i]))
    chosen = torch.zeros(values.numel(), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.view(values.shape)


def by_hand(name: str) -> Net:
    """One task of the stated rule: cosine classifier on one view, a mask drawn anew, torch's dense SGD."""
    net = Net().train()
    torch.manual_seed(draw_seed(1, "classifier", 0))
    rows, sigma = torch.empty(4, 6).uniform_(-(6**-0.5), 6**-0.5).requires_grad_(), torch.ones(1, requires_grad=True)
    sgd = torch.optim.SGD(
        [{"params": [*net.parameters()], "lr": LR}, {"params": [rows, sigma], "lr": CLASSIFIER_LR}],
        momentum=MOMENTUM,
        weight_decay=DECAY,
    )
    for epoch in range(EPOCHS):
        for step, (pixels, labels) in enumerate(Batches(images(), BATCH, (1, "order", 0, epoch))):
            cosine = functional.linear(functional.normalize(net(pixels)), functional.normalize(rows))
            sgd.zero_grad()
            functional.cross_entropy(sigma * cosine, labels - 2).backward()
            if name == "published_random":
                drawing = torch.Generator().manual_seed(draw_seed(1, "entries", 0, epoch, step))
                masks = [largest(torch.rand(p.shape, generator=drawing)) for p in net.parameters()]
            elif name == "published_magnitude":
                masks = [largest(p.detach().abs()) for p in net.parameters()]
            elif name == "published_gradient":
                everything = [*net.parameters(), rows, sigma]
                sizes = torch.cat([p.grad.abs().flatten() for p in everything])  # type: ignore[union-attr]
                flat = sizes >= sizes[largest(sizes)].min()  # one threshold, which equal ones pass together
                masks = [*flat.split([p.numel() for p in everything])]
            else:
                masks = [torch.ones(p.shape, dtype=torch.bool) for p in net.parameters()]
            for p, mask in zip([*net.parameters(), rows, sigma], masks, strict=False):
                p.grad *= mask.view(p.shape)  # type: ignore[operator]
            sgd.step()
    return net


def tuned(name: str, **options: Any) -> tuple[Net, Any]:
    net = Net()
    rates = {"full_lr" if name == "full" else "lr": LR, "classifier_lr": CLASSIFIER_LR}
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "momentum": MOMENTUM, "weight_decay": DECAY, "rate": RATE}
    settings |= {"tune_objective": "ce_cosine", **rates, **options}
    return net, create(name, net, TuningOptions(**settings), 1).tune(images())


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_the_loop_bit_for_bit(name: str) -> None:
    ours, expected = tuned(name)[0], by_hand(name)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), expected.parameters(), strict=True))
    assert not torch.equal(ours.out.weight, Net().out.weight)


@pytest.mark.parametrize("name", NAMES[:3])
def test_dense_sgd_moves_more_than_was_chosen(name: str) -> None:
    _, measured = tuned(name)
    assert measured.selected_fraction == pytest.approx(RATE, abs=0.02)
    assert min(measured.changed_all) > 0.9  # by weight decay
    assert max(tuned(name, weight_decay=0.0, momentum=0.0)[1].changed_all) < 3 * RATE


def test_gradients_that_are_kept_are_counted_in_the_backbone_alone() -> None:
    plain = {"momentum": 0.0, "weight_decay": 0.0}  # so that what is kept is what moves
    _, measured = tuned("published_gradient", **plain)
    assert measured.kept == pytest.approx(measured.changed_all, abs=0.01)
    assert measured.kept != [pytest.approx(RATE, abs=1e-9)] * len(measured.kept)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_calls_a_tuner_by_its_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"tuner '{name}' has torch's dense SGD"):
        tuned(name, precision="bf16-pure")


def test_a_task_has_one_classifier() -> None:
    with pytest.raises(ValueError, match="score_objective is 'ce', but tune_objective is 'ce_cosine': a task has one"):
        tuned("mist", score_objective="ce")
