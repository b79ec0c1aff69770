"""What a grid file means: its points, the runs that they share, and the mistakes that are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mist_ext.config import Config, TuningOptions, presets
from mist_ext.config.tuning import TRAINING
from mist_ext.config.unused import unused_by
from mist_ext.data.image_sets import Images
from mist_ext.sweep.grid import make_grid, read_grid
from mist_ext.sweep.significance import LEAST
from mist_ext.tuners import create

ROOT = Path(__file__).parents[2]


def test_tuners_and_seeds_are_split_and_methods_stay_together() -> None:
    grid = make_grid(
        {"fixed": {"method": ["simplecil", "ranpac"], "seeds": [1, 2]}, "axes": {"tuner": ["none", "mist"]}}
    )
    assert [(point.options.tuner, point.options.seeds) for point in grid.points] == [
        (["none"], [1]), (["none"], [2]), (["mist"], [1]), (["mist"], [2])
    ]  # fmt: skip
    assert all(point.options.method == ["simplecil", "ranpac"] for point in grid.points)
    assert (grid.experiments, grid.tuned_experiments, grid.tunings) == (8, 4, 2)


def test_an_axis_of_methods_is_one_run() -> None:
    first = make_grid({"axes": {"method": ["simplecil", "ranpac"], "seeds": [1]}})
    assert first == make_grid({"fixed": {"method": ["simplecil", "ranpac"]}, "axes": {"seeds": [1]}})
    assert first == make_grid({"axes": {"method": [["simplecil"], ["ranpac"]], "seeds": [1]}})


def test_a_frozen_backbone_is_shared_by_all_selection_rates_but_not_by_all_data() -> None:
    axes = {"data": ["digits", "glyphs"], "tuner": ["none", "mist"], "rate": [0.1, 0.2], "seeds": [1]}
    names = [point.name for point in make_grid({"axes": axes}).points]
    assert names == [
        "digits-none-seed=1", "digits-mist-rate=0.1-seed=1", "digits-mist-rate=0.2-seed=1",
        "glyphs-none-seed=1", "glyphs-mist-rate=0.1-seed=1", "glyphs-mist-rate=0.2-seed=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tuner", "axis", "count"),
    [
        ("none", "batch_size", 1), ("full", "batch_size", 2), ("full", "rate", 1), ("none", "class_order_seed", 2),
        ("full", "lr", 1), ("full", "full_lr", 2), ("bitfit", "full_lr", 1), ("bitfit", "bitfit_lr", 2),
        ("mist", "lr", 2), ("mist", "lora_rank", 1), ("mist", "score_objective", 2), ("random", "score_objective", 1),
        ("mist", "freeze_rate", 2), ("magnitude", "freeze_rate", 1), ("magnitude", "strike_factor", 2),
        ("gradient", "strike_factor", 1), ("none", "momentum", 1), ("none", "weight_decay", 1),
    ],
)  # fmt: skip
def test_runs_are_shared_where_a_tuner_does_not_use_the_option(tuner: str, axis: str, count: int) -> None:
    whole = axis in ("batch_size", "class_order_seed", "lora_rank")
    values = ["mi", "ce"] if axis == "score_objective" else [16, 32] if whole else [0.1, 0.2]
    assert len(make_grid({"axes": {"tuner": [tuner], axis: values, "seeds": [1]}}).points) == count


@pytest.mark.parametrize(
    ("axes", "count"),
    [
        ({"tuner": ["none"], "precision": ["fp32", "bf16"]}, 1),
        ({"tuner": ["none"], "precision": ["fp32", "bf16", "bf16-pure"]}, 2),
        ({"tuner": ["mist"], "precision": ["fp32", "bf16"]}, 2),
        ({"tuner": ["mist"], "wire": ["fp32", "bf16"]}, 1),
        ({"tuner": ["none"], "data": ["digits", "folder:x"], "image_memory": [1, 2]}, 3),
    ],
)
def test_runs_are_shared_where_an_option_changes_nothing(axes: dict, count: int) -> None:
    points = make_grid({"axes": {**axes, "seeds": [1]}}).points
    assert len(points) == len({repr(point.options) for point in points}) == count


CHANGED = {
    "score_objective": "ce",
    "score_passes": 2,
    "lora_layers": "fc",
    "whole": "qkv",
    "dynamics": "published",
    "in_backward": True,
}
CHANGED |= {"drop": "updates", "schedule": "cosine", "first_task_epochs": 3, "weight_gradients": "dense"}
CHANGED |= {"layers": "attn", "tune_objective": "ce", "epochs": 4, "batch_size": 5, "lora_rank": 2, "lora_alpha": 3}


@pytest.mark.parametrize("name", ["none", *TRAINING])
def test_what_a_tuner_is_said_not_to_use_changes_nothing(name: str, same_bits: Callable) -> None:
    if name == "lora":
        pytest.importorskip("peft")

    def tuned(options: dict) -> list[Tensor]:
        torch.manual_seed(0)
        backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
        pixels = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
        given = {"epochs": 2, "batch_size": 8, "rate": 0.3, "keep": 0.4, **options}
        if given.get("dynamics") == "published":
            given["in_backward"] = False
        tuner = create(name, backbone, TuningOptions(**given), 1)
        for _ in range(3):  # strikes and frozen entries count from the second task on
            tuner.tune(Images(pixels, torch.arange(12) % 3))
        return list(backbone.parameters())

    for option in unused_by(name, Config):
        assert hasattr(TuningOptions, option), option
    changed = {option: CHANGED.get(option, 0.5) for option in unused_by(name, Config)}
    for ours, theirs in zip(tuned({}), tuned(changed), strict=True):
        assert same_bits(ours, theirs)


def test_names_stay_when_an_axis_grows() -> None:
    few = make_grid({"axes": {"rate": [0.1], "seeds": [1], "tuner": ["mist"]}})
    more = make_grid({"axes": {"tuner": ["none", "mist"], "seeds": [3, 1], "rate": [0.01, 0.1]}})
    assert {point.name for point in few.points} < {point.name for point in more.points}


def test_a_long_name_is_cut_and_stays_its_own(tmp_path: Path) -> None:
    many = [f"l2p.option_{number}={number}" for number in range(20)]
    values = [["epochs=1"], many, [*many, "epochs=2"], ["ö" * 119], ["ö" * 120]]
    axes = {"data": ["digits"], "method_options": values, "tuner": ["none"], "seeds": [1]}
    names = [point.name for point in make_grid({"axes": axes}).points]
    assert names[0] == "digits-none-method_options=_epochs=1_-seed=1"
    assert len(set(names)) == 5
    for name in names:
        (tmp_path / name).mkdir()
        assert name.endswith("-seed=1")
    again = make_grid({"axes": {**axes, "method_options": values[::-1]}})
    assert [point.name for point in again.points] == names[::-1]


def test_options_that_go_together_stand_on_one_axis() -> None:
    grid = make_grid({
        "axes": {"data": ["digits", {"data": "glyphs", "projector_lr": 0.5}], "tuner": ["mist"], "seeds": [1]}
    })  # fmt: skip
    assert [(point.options.data, point.options.projector_lr) for point in grid.points] == [
        ("digits", 0.01),
        ("glyphs", 0.5),
    ]
    assert [point.axes for point in grid.points] == [{"data": name, "tuner": "mist"} for name in ("digits", "glyphs")]


def test_one_value_stands_for_a_list_of_one() -> None:
    plain = make_grid({"axes": {"method_options": ["epochs=1"], "seeds": [1]}})
    assert plain == make_grid({"axes": {"method_options": [["epochs=1"]], "seeds": [1]}})
    assert plain.points[0].options.method_options == ["epochs=1"]


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.type == "float"])
def test_no_number_may_be_nan(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is nan"):
        Config(**{name: math.nan}).check()


def test_a_preset_lies_below_the_grid() -> None:
    grid = make_grid({"fixed": {"preset": "mist/cub200", "epochs": 3}, "axes": {"rate": [0.2]}})
    options = grid.points[-1].options
    assert (options.data, options.tuner, options.seeds, options.epochs, options.rate) == (
        "cub200",
        ["mist"],
        [1],
        3,
        0.2,
    )


def test_the_preset_of_mist_run_lies_below_a_grid_that_names_no_data() -> None:
    points = make_grid({"axes": {"lr": [0.1]}}).points
    settings = presets.preset(presets.MAIN_JOB)
    assert {point.axes["tuner"] for point in points} == set(settings["tuner"])
    assert {point.options.data for point in points} == {"renditions"}
    assert {point.options.epochs for point in points if point.axes["tuner"] == "mist"} == {settings["epochs"]}
    for content in ({"axes": {"data": ["digits", "glyphs"]}}, {"fixed": {"data": "digits"}, "axes": {"lr": [0.1]}}):
        points = make_grid(content).points
        assert {point.axes["tuner"] for point in points} == set(Config().tuner)
        assert {point.options.epochs for point in points} == {Config().epochs}


def test_presets_on_an_axis_bring_their_own_tuners() -> None:
    names = ["mist/imagenet_r", "mist/imagenet_r-ablation-random", {"preset": "mist/cub200", "tuner": "full"}]
    grid = make_grid({"axes": {"preset": names, "seeds": [1]}})
    found = [(point.options.data, point.axes["tuner"], point.options.tuner) for point in grid.points]
    assert found == [
        ("imagenet_r", "none", ["none"]),
        ("imagenet_r", "mist", ["mist"]),
        ("imagenet_r", "published_random", ["published_random"]),
        ("cub200", "full", ["full"]),
    ]
    assert grid.axes["tuner"] == ["none", "mist", "published_random", "full"]
    assert grid.axes["preset"] == [*names[:2], "mist/cub200"]
    assert grid.redundant == ["preset"]
    given = make_grid({"axes": {"preset": names[:2], "tuner": ["none", "full"], "seeds": [1]}})
    assert [point.axes["tuner"] for point in given.points] == ["none", "none", "full", "full"]


def test_an_axis_that_tells_points_apart_is_not_redundant() -> None:
    names = ["mist/imagenet_r", "mist/imagenet_r-exact"]
    assert make_grid({"axes": {"preset": names, "seeds": [1]}}).redundant == []
    with pytest.raises(ValueError, match="has presets on an axis and names no seeds; add them"):
        make_grid({"axes": {"preset": names}})


def test_the_first_seed_alone_keeps_classifiers() -> None:
    grid = make_grid({"axes": {"tuner": ["none", "mist"], "seeds": [4, 5]}})
    assert [(point.seed, point.options.save) for point in grid.points] == [(4, "first"), (5, "none")] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axes": {"rat": [0.1]}}, r"unknown option of the grid 'rat'; did you mean 'rate'"),
        (
            {"fixed": {"epcohs": 3}, "axes": {"rate": [0.1]}},
            "unknown option of the grid 'epcohs'; did you mean 'epochs'",
        ),
        ({"axis": {"rate": [0.1]}}, "unknown part of the grid 'axis'; did you mean 'axes'"),
        ({"rate": [0.1]}, "option 'rate' of the grid stands beside fixed and axes"),
        ({"axes": {"rate": 0.1}}, r"axes\.rate is 0\.1, expected a list"),
        ({"axes": {"rate": [0.1, "much"]}}, r"axes\.rate has 'much', expected a finite number for rate"),
        ({"axes": {"rate": [0.1, 1.5]}}, r"rate is 1\.5, expected at most 1 \(at tuner none, rate 1\.5"),
        ({"axes": {"rate": [0.1, 0.1]}}, r"axes\.rate has 0\.1 twice"),
        ({"axes": {"tuner": ["none", "mits"]}}, "unknown tuner 'mits'; did you mean 'mist'"),
        ({"axes": {"method": ["ranpack"]}}, "unknown method 'ranpack'; did you mean 'ranpac'"),
        ({"axes": {"data": ["digits", "glyhps"]}}, "unknown data set 'glyhps'; did you mean 'glyphs'"),
        ({"axes": {"dynamics": ["exact", "publshed"]}}, "did you mean 'published'"),
        ({"fixed": {"rate": 0.1}, "axes": {"rate": [0.1]}}, "rate is both fixed and on an axis"),
        ({"axes": {"rate": [0.1], "data": [{"data": "digits", "rate": 0.2}]}}, "rate is on two axes"),
        ({"axes": {"data": [{"rate": 0.2}]}}, "which sets no data"),
        ({"axes": {"out": ["a", "b"]}}, "out is no option of a grid"),
        ({"fixed": {"rate": 0.1}}, "has no axes"),
        ({"fixed": {"seeds": [1, 1]}, "axes": {"rate": [0.1]}}, r"fixed\.seeds has 1 twice; leave one out"),
        ({"axes": {"rate": [math.nan]}}, r"axes\.rate has nan, expected a finite number for rate"),
        (
            {"axes": {"rate": [{"rate": 0.05, "class_order_seed": 1}, {"rate": 0.1, "class_order_seed": 2}]}},
            r"ties class_order_seed to rate, which changes nothing with tuner 'none' on 'renditions': .* of its own",
        ),
        (
            {"fixed": {"data": "digits", "shard": True}, "axes": {"rate": [0.1]}},
            "shard is True, but each run of a sweep is a single",
        ),
        (None, "expected fixed"),
    ],
)
def test_a_mistake_in_a_grid_is_named(content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_grid(content)


# The README's table has five seeds, a curve as many as the t-test needs, and what is there to be timed has one.
LEAST_SEEDS = {
    "embedded": 5,
    "renditions": 5,
    "renditions_again": 5,
    "renditions_budget": 5,
    "drop_rate": LEAST,
    "selection_rate": LEAST,
    "digits": 1,
    "weight_gradients": 5,
}


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_repository_can_be_read(path: Path) -> None:
    grid = read_grid(path)
    assert len(grid.axes["seeds"]) >= LEAST_SEEDS[path.stem]
    if path.stem != "weight_gradients":  # which compares two ways to tune, and gains with none
        assert "none" in grid.axes["tuner"]
