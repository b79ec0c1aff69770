"""Tuning with sampled weight gradients: the steps of dense ones, to within rounding, and what auto stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mist_ext import tuners
from mist_ext.arrival import UsedGradient
from mist_ext.config import Config, TuningOptions
from mist_ext.data.image_sets import Images
from mist_ext.optim.kept_gradient import KeptGradient
from mist_ext.report import as_text, read_experiments
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.weight_gradients import weight_gradients

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def tuner(name: str, seed: int = 1, **options: Any) -> SparseTuner:
    torch.manual_seed(0)
    backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    made = tuners.create(name, backbone, TuningOptions(**{"epochs": 3, "batch_size": 8, "keep": 0.3, **options}), seed)
    assert isinstance(made, SparseTuner)
    return made


def images(seed: int) -> Images:
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (20, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(20) % 4)


@pytest.mark.parametrize(("name", "drop"), [("mist", "gradients"), ("mist", "updates"), ("random", "gradients")])
def test_sampled_gradients_tune_as_dense_ones_do(name: str, drop: str) -> None:
    sampled, dense = (tuner(name, weight_gradients=kind, drop=drop) for kind in ("sampled", "dense"))
    before = {at: p.detach().clone() for at, p in sampled.backbone.named_parameters()}
    seen: dict[str, set[type]] = {}
    for kind, t in (("sampled", sampled), ("dense", dense)):
        weight = dict(t.backbone.named_parameters())["blocks.1.attn.qkv.weight"]
        kinds = seen.setdefault(kind, set())
        hook = register_optimizer_step_pre_hook(lambda *_, weight=weight, kinds=kinds: kinds.add(type(weight.grad)))
        for task in range(2):
            t.tune(images(task))
        hook.remove()
    assert seen == {"sampled": {KeptGradient}, "dense": {UsedGradient}}  # in backward, dense ones are freed
    assert sampled.steps == dense.steps > 0
    theirs = dict(dense.backbone.named_parameters())
    for at, p in sampled.backbone.named_parameters():
        torch.testing.assert_close(p, theirs[at], rtol=1e-4, atol=1e-6, msg=at)
        assert torch.equal(p != before[at], theirs[at] != before[at]), at


def test_a_run_that_goes_on_has_the_weight_gradients_it_began_with() -> None:
    began = tuner("mist", weight_gradients="sampled")
    began.tune(images(0))
    goes_on = tuner("mist", weight_gradients="dense")
    goes_on.load_state_dict(began.state_dict())
    assert goes_on.weight_gradients == "sampled"


@pytest.mark.parametrize(
    ("options", "device", "kind"),
    [
        ({}, CPU, "sampled"),
        ({}, GPU, "dense"),
        ({"weight_gradients": "sampled"}, GPU, "sampled"),
        ({"weight_gradients": "dense"}, CPU, "dense"),
        ({"in_backward": True}, CPU, "dense"),
        ({"exchange": "dense"}, CPU, "dense"),
        ({"shard": True}, CPU, "dense"),
        ({"dynamics": "published"}, CPU, "dense"),
        ({"drop": "updates"}, CPU, "sampled"),
        ({"drop": "updates", "momentum": 0.0}, CPU, "sampled"),
        ({"layers": "attn"}, CPU, "sampled"),
        ({"layers": "norm"}, CPU, "dense"),
    ],
)
def test_auto_is_sampled_on_a_cpu_unless_whole_gradients_are_needed(
    options: dict[str, Any], device: torch.device, kind: str
) -> None:
    assert weight_gradients(TuningOptions(**options), device, tuner("mist").backbone) == kind


def test_what_has_no_layer_to_sample_is_tuned_by_dense_gradients() -> None:
    made = tuner("mist", layers="norm")
    assert made.tune(images(0)).changed_all
    with pytest.raises(
        ValueError, match=r"'sampled', but no weight of an nn\.Linear of this backbone is tuned.*use dense"
    ):
        SparseTuner.check(made.backbone, TuningOptions(layers="norm", weight_gradients="sampled"))


def test_the_largest_gradients_of_a_step_show_in_dense_ones_alone() -> None:
    assert tuner("gradient").weight_gradients == "dense"


@pytest.mark.parametrize("other", [{"in_backward": True}, {"exchange": "dense"}, {"shard": True}])
def test_what_needs_whole_gradients_is_refused_beside_sampled_ones(other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(ValueError, match=rf"{name} is .*, but weight_gradients is 'sampled'.*leave {name} out"):
        Config(weight_gradients="sampled", **other).check()


def test_results_tell_which_it_was(tmp_path: Path) -> None:
    small_runs.run(
        tmp_path / "out",
        data="digits",
        images_per_class=4,
        epochs=2,
        method=["simplecil"],
        save="none",
        tuner=["mist", "none"],
    )
    for name, kind in (("mist", "sampled"), ("none", "auto")):
        content = json.loads((tmp_path / "out" / f"digits-{name}-simplecil" / "results.json").read_text())
        assert content["config"]["tuner"]["weight_gradients"] == kind
    assert "weight gradients sampled at the kept entries: mist" in as_text(
        read_experiments([tmp_path / "out"]), "markdown"
    )
