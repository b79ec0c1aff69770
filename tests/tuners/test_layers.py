"""The option layers: which tensors of the backbone a tuner may change."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mist_ext.data.image_sets import Images
from mist_ext.selection import Selection
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners import create
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuner, TuningOptions

SPARSE = ["mist", "random", "magnitude", "gradient"]


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images() -> Images:
    drawing = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(12) % 3)


def tuned(name: str, tasks: int = 2, **options: Any) -> Tuner:
    given = {"epochs": 2, "batch_size": 8, "lr": 0.05, "rate": 0.3, "keep": 0.5, "weight_decay": 0.1, **options}
    tuner = create(name, backbone(), TuningOptions(**given), 1)
    for _ in range(tasks):
        tuner.tune(images())
    return tuner


def moved(tuner: Tuner) -> set[str]:
    pairs = zip(backbone().named_parameters(), tuner.backbone.parameters(), strict=True)
    return {name for (name, p), q in pairs if not torch.equal(p, q)}


def tensors(of: str) -> set[str]:
    return {name for name, _ in backbone().named_parameters() if of in name}


@pytest.mark.parametrize("dynamics", ["exact", "published"])
@pytest.mark.parametrize("name", [*SPARSE, "full"])
def test_only_the_layers_that_are_named_change(name: str, dynamics: str) -> None:
    if (name, dynamics) == ("gradient", "published"):
        pytest.skip("refused")
    tuner = tuned(name, layers=r"\.attn\.", dynamics=dynamics)
    attention = tensors(".attn.")
    assert len(attention) == 8
    assert moved(tuner) == attention
    assert all(p.requires_grad and p.grad is None for p in tuner.backbone.parameters())


def test_of_the_biases_those_that_are_named_change() -> None:
    assert moved(tuned("bitfit", layers="attn", bitfit_lr=0.1)) == {n for n in tensors("bias") if "attn" in n}


@pytest.mark.parametrize("name", [*SPARSE, "full"])
def test_naming_all_layers_is_naming_none(name: str, same_bits: Callable) -> None:
    for ours, theirs in zip(*(tuned(name, **o).backbone.parameters() for o in ({}, {"layers": "."})), strict=True):
        assert same_bits(ours, theirs)


@pytest.mark.parametrize("in_backward", [False, True])
def test_an_interrupted_task_goes_on_with_its_layers(in_backward: bool, same_bits: Callable) -> None:
    class Stopped(Exception):
        pass

    steps = 0

    def stop_at_the_third() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise Stopped

    options: dict[str, Any] = {"layers": "attn", "in_backward": in_backward}
    expected = tuned("mist", 1, **options)
    first = tuned("mist", 0, **options)
    first.callbacks = Callbacks(checkpoint_if_due=stop_at_the_third)
    with pytest.raises(Stopped):
        first.tune(images())
    state = first.state_dict()
    second = tuned("mist", 0, **options)
    second.backbone.load_state_dict(first.backbone.state_dict())
    second.load_state_dict(state)
    second.tune(images())
    for ours, theirs in zip(second.backbone.parameters(), expected.backbone.parameters(), strict=True):
        assert same_bits(ours, theirs)


@pytest.mark.parametrize("name", [*SPARSE, "full", "bitfit"])
def test_a_pattern_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"layers is 'atn', which matches the name of no tensor of VisionTransformer"):
        tuned(name, layers="atn")


def test_layers_without_a_bias_are_refused_for_bitfit() -> None:
    with pytest.raises(ValueError, match="has no parameter named bias that layers 'pos_embed' names"):
        tuned("bitfit", layers="pos_embed")


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
def test_adapters_have_an_option_of_their_own() -> None:
    with pytest.raises(ValueError, match="tuner 'lora' puts adapters where lora_layers says"):
        tuned("lora", layers="attn")


@pytest.mark.parametrize("heads", [True, False], ids=["with_the_projector", "without"])
def test_a_tuner_may_select_some_blocks_and_leave_the_projector_out(heads: bool) -> None:
    class Second(SparseTuner):
        def select(self, images: Any, tuned: Any) -> Selection:
            wanted = "^blocks.1|^projector" if heads else "^blocks.1"
            return Selection.random(self.named_parameters(), 0.3, 1).subset(wanted)

    tuner = Second(backbone(), TuningOptions(epochs=2, batch_size=8, lr=0.05, keep=0.5), 1)
    before: Tensor = tuner.objective.projector.weight.detach().clone()
    tuner.tune(images())
    tuner.state_dict()
    assert moved(tuner) == tensors("blocks.1")
    assert torch.equal(before, tuner.objective.projector.weight) != heads
