"""Rows beside closed formulas that share no code with what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

import pytest
import torch
from torch import nn

from mist_ext import backbones
from mist_ext.config import Config
from mist_ext.cost.measuring import Bench, Cost
from mist_ext.cost.noise import NoiseImages

BATCH = 6
# vit_nano: 16 patches of 8 x 8 pixels and a class token, 128 wide, 6 blocks, 512 in the MLP.
PATCHES, TOKENS, WIDTH, DEPTH, HIDDEN = 16, 17, 128, 6, 512
LINEAR = DEPTH * 2 * TOKENS * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
ATTENTION = DEPTH * 4 * TOKENS * TOKENS * WIDTH
EMBEDDING = 2 * PATCHES * 3 * 8 * 8 * WIDTH
FORWARD = LINEAR + ATTENTION + EMBEDDING  # of one image
PROJECTION = 128


def shown(iterable: Iterable[Any], _phase: str, _total: int) -> Iterable[Any]:
    return iterable


def bench(size: int = 32, **options: Any) -> Bench:
    chosen = {"weights": "none", "batch_size": BATCH, **options}
    return Bench(Config(**chosen), torch.device("cpu"), size, 1)


def tuner(name: str, **options: Any) -> list[Cost]:
    return bench(**options).costs("tuner", name, shown)


def method(name: str, **options: Any) -> dict[str, Cost]:
    return {cost.phase: cost for cost in bench(method=[name], **options).costs("method", name, shown)}


def weights() -> dict[str, nn.Parameter]:
    return dict(backbones.create("vit_nano", "none").named_parameters())


def test_a_step_of_full_tuning_takes_two_views_forward_and_twice_that_backward() -> None:
    (cost,) = tuner("full")
    rows = 2 * BATCH
    head = 2 * rows * WIDTH * PROJECTION + 2 * rows * rows * PROJECTION  # projector and similarities
    assert cost.phase == "tune"
    assert cost.steps is not None
    assert cost.steps.forward_flops == rows * FORWARD + head
    # Gradients of weights and of inputs; of the pixels none.
    assert cost.steps.backward_flops == rows * (2 * FORWARD - EMBEDDING) + 2 * head
    everything = sum(p.numel() for p in weights().values())
    assert cost.selected == everything
    assert cost.changed == round((cost.changed_fraction or 0) * everything)
    assert 0.95 < (cost.changed_fraction or 0) <= 1
    assert len(cost.steps.times) == 1


def test_mist_selects_by_its_formula_and_changes_what_it_keeps() -> None:
    score, tune = tuner("mist", rate=0.1, keep=0.3)
    assert (score.phase, tune.phase, score.selected) == ("score", "tune", None)
    sizes = {name: p.numel() for name, p in weights().items()}
    by_score = {name for name, p in weights().items() if p.ndim > 1 and "norm" not in name}
    chosen = {n: size - ceil((size - 1) * 0.9) if n in by_score else size for n, size in sizes.items()}
    assert tune.selected == sum(chosen.values())
    total = sum(sizes[name] for name in by_score)
    assert tune.selected_fraction == pytest.approx(sum(chosen[name] for name in by_score) / total)
    assert tune.kept_fraction == pytest.approx(0.03, rel=0.03)
    assert tune.changed_fraction == pytest.approx(tune.kept_fraction, rel=0.01)
    assert tune.changed == pytest.approx(0.3 * tune.selected, rel=0.03)
    assert score.steps is not None
    assert tune.steps is not None
    assert score.steps.forward_flops == tune.steps.forward_flops
    # Scoring takes whole gradients, tuning the kept ones of the backbone's layers.
    layers = {n: size for n, size in sizes.items() if n.endswith("weight") and weights()[n].ndim > 1}
    products = sum(2 * 2 * BATCH * (PATCHES if "patch_embed" in n else TOKENS) * size for n, size in layers.items())
    assert score.steps.backward_flops - tune.steps.backward_flops == pytest.approx(products * (1 - 0.03), rel=0.002)


def test_biases_alone_take_no_gradients_of_weights() -> None:
    (cost,) = tuner("bitfit")
    rows = 2 * BATCH
    head = 2 * rows * WIDTH * PROJECTION + 2 * rows * rows * PROJECTION
    assert cost.selected == sum(p.numel() for name, p in weights().items() if name.endswith("bias"))
    assert cost.steps is not None
    # The patch embedding's bias is reached through every layer, its input by none.
    assert cost.steps.backward_flops == rows * (LINEAR + 2 * ATTENTION) + 2 * head


def test_the_frozen_backbone_takes_nothing() -> None:
    (cost,) = tuner("none")
    assert (cost.steps, cost.reason, cost.phase) == (None, "", "")


def test_prototypes_are_the_backbone_once() -> None:
    phases = method("simplecil")
    assert list(phases) == ["learn", "evaluate"]
    steps = phases["evaluate"].steps
    assert steps is not None
    classes = 3  # two images each
    assert steps.forward_flops == BATCH * (FORWARD + 2 * WIDTH * classes)
    assert steps.backward_flops == 0
    assert phases["learn"].selected is None


def test_a_method_that_trains_has_its_own_parameters_and_batch() -> None:
    phases = method("aper_adapter", method_options=["bottleneck=4", "batch_size=8"])
    train = phases["train"]
    classes = 4
    adapters = DEPTH * (2 * WIDTH * 4 + 4 + WIDTH)
    assert train.selected == adapters + classes * WIDTH + 1  # and the cosine classifier with its scale
    assert 0 < (train.changed or 0) <= train.selected
    assert train.batch_size == phases["evaluate"].batch_size == 8
    assert train.steps is not None
    forward = 8 * (FORWARD + DEPTH * 2 * TOKENS * 2 * WIDTH * 4 + 2 * WIDTH * classes)
    assert train.steps.forward_flops == forward
    evaluate = phases["evaluate"].steps
    assert evaluate is not None  # both the pre-trained and the adapted features
    assert evaluate.forward_flops == forward + 8 * (FORWARD + 2 * WIDTH * classes)


def test_a_prompt_method_pays_for_its_query() -> None:
    steps = method("dualprompt")["train"].steps
    assert steps is not None
    assert steps.forward_flops > 2 * BATCH * FORWARD


def test_what_does_not_suit_the_backbone_or_the_options_says_why() -> None:
    assert "but the backbone is a ResNet" in method("l2p", backbone="resnet10t", size=64)[""].reason
    (cost,) = tuner("full", precision="bf16-pure")
    assert "use precision bf16" in cost.reason
    assert cost.steps is None


def test_noise_is_drawn_by_key_and_has_two_images_of_each_class() -> None:
    one, other = NoiseImages(8, 12, 2), NoiseImages(8, 12, 2)
    assert torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.labels, other.labels)
    assert len(one) == 24
    assert one.labels[:12].bincount().tolist() == [2] * len(one.classes)
    assert torch.equal(one[3][0], one[15][0])
    assert NoiseImages(8, 1, 1).classes == range(1)
    assert NoiseImages(8, 64, 1).classes == range(10)
