"""Presets run from files to a table, on a tiny ViT and a few classes in the formats of the originals.

One of each kind runs: those of a kind differ in their data alone (tests/config/test_presets.py), and every data set
runs in test_miniatures.py too. The others run with ``pytest -m slow --hypothesis-profile long``.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import miniatures
import preset_kinds
import pytest
from rich.console import Console
from slow import only_long, slow

from mist_ext import methods
from mist_ext.config import Config, presets
from mist_ext.runs import benchmark

CLASSES = 4
QUICK = ("mist/DATA-l2p", "mist/DATA-ablation-gradient")


def cases() -> tuple[list[Any], list[str]]:
    """One preset of each kind, the data sets in turn, so that each has presets that run; and all others."""
    chosen, others = [], []
    for turn, (kind, names) in enumerate(preset_kinds.kinds().items()):
        name = names[turn % len(names)]
        chosen.append(name if kind in QUICK else slow(name))
        others += [other for other in names if other != name]
    return chosen, others


ONE_OF_EACH_KIND, OTHERS = cases()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    miniatures.few_classes(root, CLASSES)
    return root


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_all_others_run_too(name: str, root: Path, tmp_path: Path) -> None:
    only_long()
    test_a_preset_runs_from_files_to_table(name, root, tmp_path)
