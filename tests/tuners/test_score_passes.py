"""Scoring in several passes: less memory at a time, the same selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mist_ext.data.source import Images
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.tuner import Tuned, TuningOptions


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images() -> Images:
    pixels = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(12) % 4)


def tuned(**options: Any) -> tuple[MIST, list[Tuned]]:
    tuner = MIST(backbone(), TuningOptions(epochs=2, batch_size=8, **options), 1)
    return tuner, [tuner.tune(images()) for _ in range(2)]


@pytest.mark.parametrize(
    "options", [{}, {"score_objective": "ce", "tune_objective": "ce", "freeze_rate": 0.0}], ids=str
)
@pytest.mark.parametrize("passes", [2, 64])
def test_the_bits_are_those_of_one_pass(passes: int, options: dict, same_bits: Callable) -> None:
    (one, once), (other, often) = tuned(**options), tuned(score_passes=passes, **options)
    for ours, theirs in (
        (other.backbone.state_dict(), one.backbone.state_dict()),
        (other.history.frozen, one.history.frozen),
    ):
        assert list(ours) == list(theirs)
        assert all(same_bits(tensor, theirs[name]) for name, tensor in ours.items())
    assert [(t.selection, t.losses, t.kept, t.changed) for t in once] == [
        (t.selection, t.losses, t.kept, t.changed) for t in often
    ]


def test_each_pass_scores_consecutive_tensors_and_about_as_many_entries() -> None:
    tuner = MIST(backbone(), TuningOptions(score_passes=4), 1)
    parts = [list(part) for part in tuner.passes()]
    parameters = dict(tuner.named_parameters())
    assert [name for part in parts for name in part] == list(parameters)
    sizes = [sum(parameters[name].numel() for name in part) for part in parts]
    largest = max(p.numel() for p in parameters.values())
    assert len(parts) == 4
    assert max(sizes) <= sum(sizes) / 4 + largest + sum(p.numel() for p in tuner.objective.parameters())


def test_no_more_gradients_are_made_than_a_pass_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = MIST(backbone(), TuningOptions(epochs=2, batch_size=8, score_passes=3), 1)
    of_backbone = dict(tuner.backbone.named_parameters()).keys()
    required = [part.keys() & of_backbone for part in tuner.passes()]
    seen: list[set[str]] = []
    epoch = tuner.epoch

    def watched(*arguments: Any) -> Any:
        for loss in epoch(*arguments):
            if arguments[2] == "score":
                seen.append({name for name, p in tuner.backbone.named_parameters() if p.requires_grad})
            yield loss

    monkeypatch.setattr(tuner, "epoch", watched)
    tuner.tune(images())
    assert seen == [part for part in required for _ in range(2)]  # two batches each
