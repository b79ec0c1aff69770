"""Presets run from files to a table, on a tiny ViT and a few classes in the formats of the originals.

One of each kind runs: those of a kind differ in their data alone (tests/config/test_presets.py), and every data set
runs in test_miniatures.py too.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import miniatures
import preset_kinds
import pytest
from rich.console import Console
from slow import slow

from mist_ext import methods
from mist_ext.config import Config, presets
from mist_ext.runs import benchmark

CLASSES = 4
LAYOUTS = {
    "imagenet_r": ("imagenet-r", miniatures.wnids()),
    "imagenet_a": ("imagenet-a", miniatures.wnids()),
    "cub200": ("cub", miniatures.birds()),
    "cars196": ("cars", miniatures.models()),
}
QUICK = ("mist/DATA-l2p", "mist/DATA-ablation-gradient")


def one_of_each_kind() -> list[str]:
    """The data sets in turn, so that each has presets that run."""
    chosen = []
    for turn, (kind, names) in enumerate(preset_kinds.kinds().items()):
        name = names[turn % len(names)]
        chosen.append(name if kind in QUICK else slow(name))
    return chosen


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets of the presets, few classes of them; CIFAR's archive has all of its own."""
    root = tmp_path_factory.mktemp("data")
    miniatures.cifar100(root)
    for folder, names in LAYOUTS.values():
        miniatures.class_folders(root / folder, names[:CLASSES], miniatures.two_parts("test"))
    return root


@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_preset_runs_from_files_to_table(name: str, root: Path, tmp_path: Path) -> None:
    preset = presets.preset(name)
    (method,) = preset["method"]
    cifar = preset["data"] == "cifar100"
    size = 50 if cifar else CLASSES // 2
    chosen = {**preset, "backbone": "vit_nano", "classes_per_task": size, "epochs": 2, "workers": 0}
    chosen |= {"images_per_class": 1} if cifar else {}
    small = {"epochs": "1", "width": "50"}
    known = methods.options_of(method)
    chosen["method_options"] = [f"{option}={value}" for option, value in small.items() if option in known]
    benchmark.run(Config(**chosen, data_root=str(root), out=str(tmp_path)), Console(file=io.StringIO()))
    for tuner in preset["tuner"]:
        results = json.loads((tmp_path / f"{preset['data']}-{tuner}-{method}" / "results.json").read_text())
        tasks = results["runs"][0]["tasks"]
        assert [len(task["classes"]) for task in tasks] == [size, size]
        if tuner != "none":
            assert all(task["changed_fraction"]["max"] > 0 for task in tasks)
