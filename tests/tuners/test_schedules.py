"""Learning rates go down within a task as torch's own schedulers lower them; later tasks have rates of their own."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mist_ext.config import TuningOptions
from mist_ext.data.image_sets import Images
from mist_ext.tuners import create
from mist_ext.tuners.divergence import Diverged

PEFT = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
EPOCHS, BATCHES = 3, 3  # the last batch is short


def images() -> Images:
    pixels = torch.randint(0, 256, (20, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(20) % 4)


def rates(name: str, **options: Any) -> list[list[float]]:
    """Return the learning rates of every step of two tasks, a list for each step."""
    torch.manual_seed(0)
    backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    tuner = create(name, backbone, TuningOptions(**{"epochs": EPOCHS, "batch_size": 8, **options}), 1)
    found: list[list[float]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        found.append([group["lr"] for group in optimizer.param_groups])

    handle = register_optimizer_step_pre_hook(note)
    try:
        tuner.tune(images())
        tuner.tune(images())
    finally:
        handle.remove()
    return found


def torchs(base: list[float], steps: int) -> list[list[float]]:
    """Return the rates of torch's cosine over as many steps."""
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in base])
    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "options", "epochs"),
    [
        ("mist", {}, EPOCHS - 1),
        ("mist", {"in_backward": False}, EPOCHS - 1),
        ("mist", {"dynamics": "published"}, EPOCHS - 1),
        ("mist", {"tune_objective": "ce"}, EPOCHS - 1),
        ("gradient", {}, EPOCHS - 1),
        ("full", {}, EPOCHS),
        ("bitfit", {}, EPOCHS),
        pytest.param("lora", {}, EPOCHS, marks=PEFT),
    ],
)
def test_a_cosine_is_torch_s_over_the_steps_of_each_task(name: str, options: dict[str, Any], epochs: int) -> None:
    steps = epochs * BATCHES
    constant = rates(name, **options)
    assert len(constant) == 2 * steps
    assert all(step == constant[0] for step in constant)
    cosine = rates(name, schedule="cosine", **options)
    expected = torchs(constant[0], steps)
    assert cosine[:steps] == cosine[steps:]
    for found, wanted in zip(cosine[:steps], expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("name", "scoring"), [("mist", 1), ("full", 0)])
def test_the_first_task_has_epochs_of_its_own(name: str, scoring: int) -> None:
    base = rates(name)[0]
    found = rates(name, first_task_epochs=5, epochs=2, schedule="cosine")
    first, second = (epochs - scoring for epochs in (5, 2))
    expected = [*torchs(base, first * BATCHES), *torchs(base, second * BATCHES)]
    assert len(found) == len(expected)
    for step, wanted in zip(found, expected, strict=True):
        assert step == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mist", {}),
        ("mist", {"dynamics": "published"}),
        ("random", {}),
        ("gradient", {}),
        ("full", {}),
        ("bitfit", {}),
        pytest.param("lora", {}, marks=PEFT),
    ],
)
def test_later_tasks_have_their_share_of_the_backbone_s_rate(name: str, options: dict[str, Any]) -> None:
    found = rates(name, later_lr_factor=0.25, projector_lr=0.5, **options)
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    base = getattr(TuningOptions(), {"full": "full_lr", "bitfit": "bitfit_lr", "lora": "lora_lr"}.get(name, "lr"))
    for step in first:
        assert set(step) == {base, 0.5}
    for step in second:
        assert set(step) == {0.25 * base, 0.5}


def test_training_that_diverges_in_a_later_task_names_its_factor() -> None:
    with pytest.raises(Diverged, match=r"task 2, .* lower --later-lr-factor \(1e\+20\) or --full-lr"):
        rates("full", later_lr_factor=1e20, full_lr=1e-3)
