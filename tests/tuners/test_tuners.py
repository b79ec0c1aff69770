"""What holds for every tuner: how much it changes, that runs repeat, and what options are refused."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mist_ext.config.tuning import OWN
from mist_ext.data.image_sets import Images
from mist_ext.system import peak_memory
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners import TUNERS, create
from mist_ext.tuners.tuner import Tuned, Tuner, TuningOptions

LORA = pytest.param("lora", marks=pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft"))
TRAINED = ["mist", "full", "random", "magnitude", "gradient", "bitfit", LORA]
DENSE = ["full", "bitfit", LORA]


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images(seed: int) -> Images:
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (12, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(12) % 3)


def tuned(name: str, seed: int = 1, **options: Any) -> tuple[Tuner, Tuned]:
    """A tuner after two tasks, and its second report."""
    tuner = create(
        name, backbone(), TuningOptions(**{"epochs": 3, "batch_size": 8, "in_backward": False, **options}), seed
    )
    tuner.tune(images(0))
    return tuner, tuner.tune(images(1))


def values(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def changed_fraction(tuner: Tuner) -> float:
    pairs = list(zip(values(backbone()), values(tuner.backbone), strict=True))
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


def test_none_changes_nothing(same_bits: Callable) -> None:
    tuner, report = tuned("none")
    assert all(same_bits(a, b) for a, b in zip(values(backbone()), values(tuner.backbone), strict=True))
    assert report.fractions() == {
        "selected_fraction": None, "kept_fraction": None, "changed_fraction": None, "changed_fraction_all": None,
    }  # fmt: skip
    assert sum(report.costs.seconds.values()) == 0
    assert set(report.costs.peak_memory_bytes.values()) == {None}


def test_full_changes_nearly_everything() -> None:
    tuner, report = tuned("full")
    assert changed_fraction(tuner) > 0.95
    assert report.selected_fraction == 1
    assert report.kept == [1.0] * 3
    assert all(0.95 < fraction <= 1 for fraction in report.changed_all)
    assert report.changed == report.changed_all


@pytest.mark.parametrize("name", ["mist", "random", "magnitude"])
def test_sparse_tuners_change_at_most_what_they_select(name: str) -> None:
    tuner, report = tuned(name)
    whole = sum(p.numel() for n, p in tuner.backbone.named_parameters() if p.ndim <= 1)
    total = sum(p.numel() for p in tuner.backbone.parameters())
    assert 0 < changed_fraction(tuner) < 2 * 0.052 + whole / total
    assert report.selected_fraction == pytest.approx(0.05, abs=0.001)
    assert all(0 < changed <= kept < 0.01 for changed, kept in zip(report.changed, report.kept, strict=True))
    assert report.fractions()["changed_fraction"].max == max(report.changed)
    assert report.costs.seconds["tune"] > 0


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("mist", ["score", "select", "tune"]),
        *((name, ["select", "tune"]) for name in ("random", "magnitude", "gradient")),
        *((name, ["tune"]) for name in ("full", "bitfit")),
        pytest.param("lora", ["tune"], marks=LORA.marks),
    ],
)
def test_time_and_memory_are_measured_for_the_phases_that_a_tuner_has(name: str, phases: list[str]) -> None:
    costs = tuned(name)[1].costs
    assert [phase for phase, spent in costs.seconds.items() if spent] == phases
    assert [phase for phase, peak in costs.peak_memory_bytes.items() if peak] == phases


def test_what_a_checkpoint_takes_counts_under_no_phase() -> None:
    def save() -> None:
        time.sleep(0.1)
        torch.ones(50 * 10**6)

    quiet, busy = (create("mist", backbone(), TuningOptions(epochs=2, batch_size=8), 1) for _ in range(2))
    busy.callbacks = Callbacks(checkpoint_if_due=save)
    expected, costs = quiet.tune(images(0)).costs, busy.tune(images(0)).costs
    assert sum(costs.seconds.values()) < sum(expected.seconds.values()) + 0.3
    if peak_memory.resettable():
        assert costs.peak_memory_bytes["tune"] - expected.peak_memory_bytes["tune"] < 100 * 10**6


@pytest.mark.parametrize("dynamics", ["exact", "published"])
def test_in_published_dynamics_weight_decay_moves_almost_everything(dynamics: str) -> None:
    _, report = tuned("mist", dynamics=dynamics, weight_decay=0.1)
    assert (max(report.changed_all) > 0.9) == (dynamics == "published")


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_repeats_bit_for_bit_and_follows_its_seed(name: str, same_bits: Callable) -> None:
    torch.manual_seed(5)
    first, _ = tuned(name)
    torch.manual_seed(6)  # the global generator has no say
    again, _ = tuned(name)
    other, _ = tuned(name, seed=2)
    a, b, c = (values(t.backbone) + values(t.objective) for t in (first, again, other))
    assert all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    assert not all(same_bits(x, y) for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize("name", TRAINED)
def test_tuning_leaves_no_gradient_behind(name: str) -> None:
    tuner, _ = tuned(name)
    assert all(p.grad is None for p in [*tuner.backbone.parameters(), *tuner.objective.parameters()])


def test_progress_passes_every_batch_of_every_epoch() -> None:
    seen: list[str] = []

    def progress(iterable: Any, description: str, total: int) -> Any:
        for number, item in enumerate(iterable):
            seen.append(f"{description}: {number + 1}/{total}")
            yield item

    tuner = create("mist", backbone(), TuningOptions(epochs=3, batch_size=8), 1)
    tuner.callbacks = Callbacks(progress)
    tuner.tune(images(0))
    phases = ("score", "tune 1/2", "tune 2/2")
    assert seen == [f"{phase}: {number}/2" for phase in phases for number in (1, 2)]


def test_an_unknown_tuner_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"'mits'.*mist"):
        create("mits", backbone(), TuningOptions(), 1)
    assert set(TUNERS) == set(OWN)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0), ("batch_size", 0), ("lr", 0.0), ("rate", 0.0), ("rate", 1.5), ("keep", 0.0), ("keep", 1.1),
        ("momentum", -0.1), ("momentum", 1.1), ("weight_decay", -1e-4), ("freeze_rate", -0.1), ("strike_factor", 0.0),
        ("strike_factor", 1.1), ("full_lr", -1.0), ("projector_lr", 0.0), ("classifier_lr", 0.0),
        ("bitfit_lr", 0.0), ("lora_lr", 0.0), ("lora_rank", 0), ("lora_alpha", 0),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_named(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{option} is {value}, expected"):
        create("mist", backbone(), TuningOptions(**{option: value}), 1)


@pytest.mark.parametrize("name", DENSE)
def test_dense_tuners_refuse_pure_bf16_whose_rounding_would_swallow_their_steps(name: str) -> None:
    with pytest.raises(ValueError, match=rf"tuner '{name}' has torch's dense SGD without fp32 masters"):
        tuned(name, precision="bf16-pure")


@pytest.mark.parametrize("name", ["mist", "random", "magnitude", "gradient"])
def test_pure_bf16_tunes_a_bf16_backbone(name: str) -> None:
    tuner, report = tuned(name, precision="bf16-pure", lr=0.1)
    assert all(p.dtype == torch.bfloat16 for p in tuner.backbone.parameters())
    assert min(report.changed) > 0
    start = [p.bfloat16() for p in values(backbone())]
    assert any(not torch.equal(a, b) for a, b in zip(start, values(tuner.backbone), strict=True))


def test_the_untuned_backbone_has_the_run_s_precision_too() -> None:
    tuner, _ = tuned("none", precision="bf16-pure")
    assert all(p.dtype == torch.bfloat16 for p in tuner.backbone.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_checkpointing_gives_the_same_bits(name: str, same_bits: Callable) -> None:
    plain, slim = tuned(name)[0], tuned(name, checkpointing=True)[0]
    assert slim.backbone.grad_checkpointing
    assert all(same_bits(a, b) for a, b in zip(values(plain.backbone), values(slim.backbone), strict=True))


@pytest.mark.slow
def test_compiled_blocks_tune_as_others_do() -> None:
    plain, compiled = tuned("full", lr=1e-2)[0], tuned("full", lr=1e-2, compile=True)[0]
    assert all(block._compiled_call_impl is not None for block in compiled.backbone.blocks)
    for a, b in zip(values(plain.backbone), values(compiled.backbone), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [("compile", "Linear has no list of blocks"), ("checkpointing", "Linear does not support checkpointing")],
)
def test_what_a_backbone_cannot_do_is_refused(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create("none", nn.Linear(3, 3), TuningOptions(**{option: True}), 1)
