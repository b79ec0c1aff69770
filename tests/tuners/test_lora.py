"""Low-rank adapters that are merged after every task."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mist_ext.config import Config
from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.seeding import draw_seed
from mist_ext.tuners import create, named
from mist_ext.tuners.tuner import TuningOptions
from mist_ext.tuners.views import TwoViews

COUNT, BATCH = 20, 8  # three batches, the last one short
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images(seed: int = 0) -> Images:
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(COUNT) % 4)


def tuner(**options: Any) -> Any:
    return create("lora", backbone(), TuningOptions(**{"epochs": 2, "batch_size": BATCH, **options}), 1)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@needs_peft
def test_lora_adds_a_matrix_of_low_rank_to_the_chosen_layers_and_leaves_an_ordinary_backbone() -> None:
    t = tuner(lora_rank=3, lora_alpha=6, lora_lr=0.1)
    names = list(t.backbone.state_dict())
    before = values(t.backbone)
    for task in (1, 2):
        tuned = t.tune(images(task))
        assert list(t.backbone.state_dict()) == names
        for name, p in t.backbone.named_parameters():
            assert p.requires_grad
            assert p.grad is None
            difference = (p.detach() - before[name]).double()
            if "qkv.weight" in name:
                assert difference.abs().max() > 1e-4
                assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 3 * task
            else:
                assert not difference.any()
        share = 2 * 96 * 32 / sum(p.numel() for p in t.backbone.parameters())
        assert tuned.selected_fraction == pytest.approx(share)
        assert tuned.changed == tuned.changed_all
        assert all(0.9 * share < changed <= share for changed in tuned.changed)


@needs_peft
def test_what_lora_measures_is_what_it_merges() -> None:
    t = tuner(epochs=1, batch_size=COUNT)  # a single step
    before = values(t.backbone)
    tuned = t.tune(images())
    changed = sum(int((p != before[name]).sum()) for name, p in t.backbone.named_parameters())
    assert tuned.changed_all == [changed / sum(p.numel() for p in t.backbone.parameters())]


@needs_peft
def test_lora_s_adapters_follow_torch_s_sgd() -> None:
    ours = tuner(epochs=1, batch_size=COUNT, lora_lr=0.1)
    before = values(ours.backbone)["blocks.1.attn.qkv.weight"]
    slow = tuner()
    both, labels = single_batch(slow)
    slow.backbone.train()
    weight = slow.backbone.blocks[1].attn.qkv.weight
    (gradient,) = torch.autograd.grad(slow.objective(slow.backbone(both), labels), [weight])
    ours._attach(0)
    a = dict(ours.trained())["blocks.1.attn.qkv.lora_A.default.weight"].detach().clone()
    ours.tune(images())
    # With B = 0 the gradient of B is scaling * G A^T, and the decayed A meets a B of one step.
    expected = -2 * (0.1 * 2 * gradient @ a.T) @ (a * (1 - 0.1 * 5e-4))
    moved = ours.backbone.blocks[1].attn.qkv.weight.detach() - before
    torch.testing.assert_close(moved, expected, rtol=1e-2, atol=1e-6)


def single_batch(t: Any) -> tuple[Tensor, Tensor]:
    """The single two-view batch of a first epoch that holds all images."""
    pixels, labels = next(iter(Batches(images(), COUNT, (t.seed, "order", 0, 0))))
    return TwoViews()(pixels, draw_seed(t.seed, "views", 0, 0, 0)), labels


@needs_peft
def test_lora_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_layers is 'query', which matches the name of no linear layer"):
        tuner(lora_layers="query")
    with pytest.raises(ValueError, match=r"lora_layers is '\(', which is no regular expression"):
        tuner(lora_layers="(")


def test_lora_without_peft_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"tuner 'lora' needs peft, .* pip install \"\.\[peft\]\""):
        Config(tuner=["none", "lora"]).check()
    with pytest.raises(ValueError, match="needs peft"):
        named("lora")
