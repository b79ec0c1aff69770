"""Figures of what a run recorded: their numbers, their two formats, and any size of model and stream."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mist_ext.report import Experiment, parse_experiment, write_figures
from mist_ext.report.figures import Drawing, experiment_drawings
from mist_ext.report.per_class import class_matrix, forgetting_by_class
from mist_ext.report.selection_shares import positions_by_name, shares

Result = Callable[..., dict[str, Any]]


def drawing(experiment: Experiment, name: str) -> Drawing:
    return next(one for one in experiment_drawings(experiment) if one.name == name)


def hand_written(result: Result, **orders: tuple[list[int], list[list[float]]]) -> Experiment:
    """Runs of two tasks of two classes, from each seed's class order and accuracies per class."""
    content = result(seeds=tuple(range(len(orders))), tasks=2)
    for run, (order, accuracies) in zip(content["runs"], orders.values(), strict=True):
        for number, (task, accuracy) in enumerate(zip(run["tasks"], accuracies, strict=True)):
            task |= {"classes": order[2 * number : 2 * number + 2], "accuracy_per_class": accuracy}
    return parse_experiment(content, "")


def test_forgetting_follows_a_class_through_the_orders_of_all_seeds(result: Result) -> None:
    experiment = hand_written(
        result,
        one=([4, 7, 1, 2], [[90.0, 80.0], [70.0, 85.0, 50.0, 60.0]]),
        other=([7, 1, 2, 4], [[60.0, 40.0], [50.0, 10.0, 90.0, 90.0]]),
    )
    assert forgetting_by_class(experiment) == {4: [20.0], 7: [-5.0, 10.0], 1: [30.0]}
    assert class_matrix(experiment).of == "seed 0"
    assert class_matrix(experiment).classes == [4, 7, 1, 2]
    assert class_matrix(experiment).rows == [[90.0, 70.0], [80.0, 85.0], [50.0], [60.0]]
    right = drawing(experiment, "forgetting").figure.axes[1]
    assert [bar.get_width() for bar in right.patches] == [30.0, 20.0, 2.5]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["1", "4", "7"]


def test_the_class_matrix_is_a_mean_where_all_seeds_have_one_order(result: Result) -> None:
    order = [4, 7, 1, 2]
    experiment = hand_written(
        result,
        one=(order, [[90.0, 80.0], [70.0, 85.0, 50.0, 60.0]]),
        other=(order, [[80.0, 80.0], [60.0, 95.0, 50.0, 80.0]]),
    )
    assert class_matrix(experiment).of == "mean of 2 seeds"
    assert class_matrix(experiment).rows == [[85.0, 65.0], [80.0, 90.0], [50.0], [70.0]]


def test_the_best_of_all_earlier_tasks_counts(result: Result) -> None:
    content = result(seeds=(1,), tasks=3, classes_per_task=1)
    for task, accuracies in zip(content["runs"][0]["tasks"], ([50.0], [90.0, 10.0], [60.0, 30.0, 5.0]), strict=True):
        task["accuracy_per_class"] = accuracies
    first, second, _ = [task["classes"][0] for task in content["runs"][0]["tasks"]]
    assert forgetting_by_class(parse_experiment(content, "")) == {first: [30.0], second: [-20.0]}


NAMES = {
    "vit": {
        "cls_token": ("embedding", "cls_token"),
        "patch_embed.proj.weight": ("embedding", "proj weight"),
        "blocks.0.norm1.weight": ("blocks.0", "norm weight"),
        "blocks.0.attn.qkv.weight": ("blocks.0", "qkv weight"),
        "blocks.11.mlp.fc2.bias": ("blocks.11", "fc2 bias"),
        "blocks.11.ls2.gamma": ("blocks.11", "ls2 gamma"),
        "fc_norm.weight": ("head", "norm weight"),
    },
    "swin": {
        "patch_embed.proj.bias": ("embedding", "proj bias"),
        "layers.0.blocks.1.attn.relative_position_bias_table": ("layers.0", "attn relative_position_bias_table"),
        "layers.1.downsample.norm.bias": ("layers.1", "norm bias"),
    },
    "numbers_in_the_rest": {"stages.2.0.weight": ("stages.2", "weight"), "head.bias": ("head", "head bias")},
    "sequential": {"0.weight": ("0", "weight"), "0.bias": ("0", "bias"), "weight": ("head", "weight")},
    "list_of_parameters": {"scale.3": ("scale.3", "scale"), "alone": ("head", "alone")},
    "no_numbers": {"weight": ("embedding", "weight"), "bias": ("embedding", "bias")},
}


@pytest.mark.parametrize("positions", NAMES.values(), ids=NAMES)
def test_any_name_has_a_layer_and_a_kind(positions: dict[str, tuple[str, str]]) -> None:
    assert positions_by_name(list(positions)) == positions


MODELS = [
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "eva02_tiny_patch14_224",
    "vit_tiny_r_s16_p8_224",
    "levit_128s",
    "xcit_nano_12_p16_224",
]


@pytest.mark.parametrize("model", MODELS)
def test_the_blocks_of_timm_models_share_their_kinds(model: str) -> None:
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    with torch.device("meta"):
        names = [name for name, _ in timm.create_model(model, num_classes=0).named_parameters()]
    positions = positions_by_name(names)
    assert list(positions) == names
    layers, kinds = ({position[part] for position in positions.values()} for part in (0, 1))
    assert 3 <= len(layers) <= 40
    assert len(kinds) <= 40


def test_shares_are_those_of_the_entries_and_scores_together(result: Result) -> None:
    experiment = parse_experiment(result(), "")
    found = shares(experiment)
    assert found.layers == ["embedding", "blocks.0", "blocks.1", "head"]
    assert found.kinds == [
        "norm weight",
        "norm bias",
        "qkv weight",
        "qkv bias",
        "fc1 weight",
        "cls_token",
        "proj weight",
    ]
    assert found.selected["blocks.1", "qkv weight"] == pytest.approx(9 / 192)
    assert found.selected["head", "norm weight"] == 1.0
    assert ("head", "qkv weight") not in found.selected
    assert sum(found.score.values()) == pytest.approx(1.0)
    assert found.held["blocks.0", "fc1 weight"] == pytest.approx(0.4)


def test_tensors_of_one_layer_and_kind_are_summed_by_their_sizes(result: Result) -> None:
    content = result(seeds=(1,), tasks=1)
    content["runs"][0]["tasks"][0]["selection"] = [
        {"name": "b.0.norm1.weight", "entries": 10, "selected": 10, "score_share": 0.1, "score_selected": 1.0},
        {"name": "b.0.norm2.weight", "entries": 30, "selected": 0, "score_share": 0.3, "score_selected": 0.2},
    ]
    found = shares(parse_experiment(content, ""))
    assert found.selected == {("b.0", "norm weight"): 0.25}
    assert found.score == {("b.0", "norm weight"): pytest.approx(0.4)}
    assert found.held == {("b.0", "norm weight"): pytest.approx(0.4)}


def test_a_tuner_without_scores_shows_its_selection_alone(result: Result) -> None:
    scored, whole = (drawing(parse_experiment(result(tuner), ""), "selection").figure for tuner in ("mist", "full"))
    titles = [[axes.get_title() for axes in figure.axes] for figure in (scored, whole)]
    assert titles[0] == ["selected (% of entries)", "share of all scores (%)", "own score in selected entries (%)"]
    assert titles[1] == titles[0][:1]


def test_the_selection_shows_every_share_where_it_belongs(result: Result) -> None:
    axes = drawing(parse_experiment(result(), ""), "selection").figure.axes[0]
    layers, kinds = ["embedding", "blocks.0", "blocks.1", "head"], shares(parse_experiment(result(), "")).kinds
    assert [tick.get_text() for tick in axes.get_yticklabels()] == layers
    written = {
        (layers[entry.get_position()[1]], kinds[entry.get_position()[0]]): entry.get_text() for entry in axes.texts
    }
    assert written["blocks.1", "qkv weight"] == "4.7"
    assert written["head", "norm weight"] == "100"
    assert len(written) == 2 + 2 * 5 + 1


def test_what_was_not_recorded_is_not_drawn(result: Result) -> None:
    content = result()
    for run in content["runs"]:
        for task in run["tasks"]:
            task["accuracy_per_class"] = [None] * len(task["accuracy_per_class"])
            task |= {"selection": [], "seconds": {}, "peak_memory_bytes": {}}
    assert [one.name for one in experiment_drawings(parse_experiment(content, ""))] == ["accuracy", "matrix"]


def test_seconds_are_stacked_by_phase_and_memory_stands_beside_them(result: Result) -> None:
    figure = drawing(parse_experiment(result(), ""), "costs").figure
    seconds, memory = figure.axes
    heights = [[bar.get_height() for bar in phase] for phase in seconds.containers]
    assert heights == [[2.0] * 3, [0.25] * 3, [9.0] * 3, [1.5] * 3, [0.75, 1.5, 2.25]]
    assert seconds.containers[-1][2].get_y() == pytest.approx(12.75)
    assert [[bar.get_height() for bar in phase] for phase in memory.containers] == [[2.0] * 3, [3.0] * 3, [1.0] * 3]
    assert [bars.get_label() for bars in memory.containers] == [
        f"{phase}, at most {most}.00 GiB" for phase, most in (("score", 2), ("tune", 3), ("learn", 1))
    ]
    colours = [{bars.get_label().split(",")[0]: bars[0].get_facecolor() for bars in a.containers} for a in figure.axes]
    assert colours[1].items() <= colours[0].items()
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in memory.patches)
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(spans))
    assert "GiB" in memory.get_ylabel()


def test_a_peak_is_the_largest_over_seeds(result: Result) -> None:
    content = result(seeds=(1, 2, 3))
    content["runs"][1]["tasks"][2]["peak_memory_bytes"]["tune"] = 5 << 30
    one = drawing(parse_experiment(content, ""), "costs")
    assert [bar.get_height() for bar in one.figure.axes[1].containers[1]] == [3.0, 3.0, 5.0]
    assert "at most 5.00 GiB of memory (score 2.00, tune 5.00, learn 1.00)" in one.description


@pytest.mark.parametrize("classes", [10, 200])
@pytest.mark.parametrize("same_order", [True, False], ids=["one_order", "an_order_for_each_seed"])
def test_few_and_many_classes_fit_on_a_page(result: Result, classes: int, same_order: bool) -> None:
    experiment = parse_experiment(result(tasks=5, classes_per_task=classes // 5, same_order=same_order), "")
    one = drawing(experiment, "forgetting")
    width, height = one.figure.get_size_inches()
    assert 3 < height <= 8 < width < 10
    left, right, *_ = one.figure.axes
    assert left.images[0].get_array().shape == (classes, 5)
    labels = [tick.get_text() for tick in left.get_yticklabels()]
    assert len(labels) == (10 if classes == 10 else 11)
    assert any("most forgotten:" in text.get_text() for text in right.texts) == (classes == 200)


@pytest.mark.parametrize("layers", [2, 32])
def test_few_and_many_layers(result: Result, layers: int) -> None:
    one = drawing(parse_experiment(result(layers=layers, tasks=1, seeds=(1,)), ""), "selection")
    width, height = one.figure.get_size_inches()
    assert max(width, height) < 14
    assert one.png().startswith(b"\x89PNG")


def test_svg_keeps_text_and_is_the_same_in_every_process(result: Result, tmp_path: Path) -> None:
    experiment = parse_experiment(result(), "")
    files = write_figures(experiment, tmp_path)
    svgs = {file.name: file.read_text(encoding="utf-8") for file in files if file.suffix == ".svg"}
    assert len(svgs) == 5
    for content in svgs.values():
        root = ElementTree.fromstring(content)
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "digits · mist · simplecil" in words
        assert "date" not in content
    code = (
        "import json, sys; from pathlib import Path; from mist_ext.report import parse_experiment, write_figures;"
        "write_figures(parse_experiment(json.load(sys.stdin), ''), Path(sys.argv[1]))"
    )
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-c", code, again], input=json.dumps(result()), text=True, check=True)
    assert {name: (again / name).read_text(encoding="utf-8") for name in svgs} == svgs


def test_dollars_and_angle_brackets_in_names_are_shown_as_they_are(result: Result, tmp_path: Path) -> None:
    content = result()
    content["config"]["data"]["name"] = r"a$\frac$ <b> & c"
    write_figures(parse_experiment(content, ""), tmp_path)
    root = ElementTree.fromstring((tmp_path / "accuracy.svg").read_text(encoding="utf-8"))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert r"a$\frac$ <b> & c · mist · simplecil" in words


def test_the_forgetting_figure_names_classes(result: Result) -> None:
    content = result(tasks=2, classes_per_task=2, seeds=(1,))
    names = ["heron", "a$b$c", "x" * 100, "\x1b[31m"]
    content["config"]["data"]["class_names"] = names
    experiment = parse_experiment(content, "")
    one = drawing(experiment, "forgetting")
    left, right, *_ = one.figure.axes
    shown = {"heron", r"a\$b\$c", "x" * 15 + "…" + "x" * 8, r"\x1b[31m"}
    assert {tick.get_text() for tick in left.get_yticklabels()} == shown
    assert {tick.get_text() for tick in right.get_yticklabels()} <= shown
    lost = forgetting_by_class(experiment)
    worst = max(lost, key=lambda label: lost[label][0])
    assert f"most: class {experiment.class_name(worst)} " in one.description


def test_what_is_not_yet_seen_is_grey_and_no_accuracy_is(result: Result) -> None:
    content = result(tasks=3, seeds=(1,))
    for name in ("matrix", "forgetting"):
        axes = drawing(parse_experiment(content, ""), name).figure.axes[0]
        ground, image = axes.get_facecolor()[:3], axes.images[0]
        assert len(set(ground)) == 1
        assert 0.8 < ground[0] < 0.95
        assert image.get_array().mask.any()
        for value in (image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax):
            red, _, blue, _ = image.cmap(image.norm(value))
            assert blue - red > 0.08  # neither white nor grey
        assert "grey: not yet seen" in axes.get_xlabel()
