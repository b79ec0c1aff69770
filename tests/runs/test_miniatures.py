"""The five published benchmarks end to end, on miniature copies in the formats that the originals have on the disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import miniatures
import pytest
from rich.console import Console

from mist_ext.config import Config, presets
from mist_ext.runs import benchmark

SMALL = {"backbone": "vit_nano", "epochs": 2, "lr": 3e-3, "workers": 0, "images_per_class": 1}
SHARED = {"batch_size": 48, "freeze_rate": 1e-3}  # by methods of which each has its own published ones


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    ("data", "layout", "classes"),
    [
        ("cifar100", miniatures.cifar100, [10] * 10),
        ("imagenet_r", miniatures.imagenet_r_tree, [20] * 10),
        ("imagenet_a", miniatures.imagenet_a, [20] * 10),
        ("cub200", miniatures.cub200_official, [20] * 10),
        ("cars196", miniatures.cars196_official, [20] * 9 + [16]),
    ],
)
def test_a_preset_runs_from_files_to_table(data: str, layout, classes: list[int], tmp_path: Path) -> None:
    layout(tmp_path / "data")
    chosen = presets.preset(f"mist/{data}-exact", {**SMALL, **SHARED, "method": ["simplecil", "ranpac"]})
    chosen["method_options"] = ["ranpac.width=200"]
    options = Config(**chosen, data_root=str(tmp_path / "data"), out=str(tmp_path / "run"))
    benchmark.run(options, Console(file=io.StringIO()))
    for tuner in ("none", "mist"):
        for method in ("simplecil", "ranpac"):
            result = json.loads((tmp_path / "run" / f"{data}-{tuner}-{method}" / "results.json").read_text())
            (one,) = result["runs"]
            assert [len(task["classes"]) for task in one["tasks"]] == classes
            assert one["last_accuracy"] > 5 * 100 / sum(classes)  # chance is 100 / classes
    mist = json.loads((tmp_path / "run" / f"{data}-mist-simplecil" / "results.json").read_text())
    changed = [task["changed_fraction"]["max"] for task in mist["runs"][0]["tasks"]]
    assert 0 < max(changed) < 0.006
    assert (tmp_path / "run" / "summary.md").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("shallow")
def test_worker_processes_and_kept_images_change_nothing(tmp_path: Path) -> None:
    miniatures.cars196(tmp_path / "data")  # whose training views are drawn from images that are kept
    results = []
    for workers, memory in ((0, 0.0), (2, 0.0), (2, 4.0)):
        out = tmp_path / f"run-{workers}-{memory}"
        options = Config(
            **{**presets.preset("mist/cars196-simplecil-exact"), **SMALL, "workers": workers, "tuner": ["mist"]},
            image_memory=memory,
            data_root=str(tmp_path / "data"),
            out=str(out),
        )
        options.classes_per_task = 98
        benchmark.run(options, Console(file=io.StringIO()))
        results.append(json.loads((out / "cars196-mist-simplecil" / "results.json").read_text())["runs"][0])
    assert results[0]["accuracy_matrix"] == results[1]["accuracy_matrix"] == results[2]["accuracy_matrix"]
    selections = [one["tasks"][0]["selection"] for one in results]
    assert selections[0] == selections[1] == selections[2]
