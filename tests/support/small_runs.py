"""Runs that take seconds, and what they leave."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from mist_ext.config import Config
from mist_ext.runs import benchmark

SETTINGS = {
    "tuner": ["mist"],
    "method": ["simplecil", "ranpac"],
    "seeds": [1],
    "epochs": 2,
    "batch_size": 16,
    "classes_per_task": 5,
    "save": "all",
    "checkpoint_every": "never",
}

HOW = ("exchange", "in_backward", "checkpointing")  # how the work is done: one process has the same bits either way


def run(folder: Path, **options) -> str:
    output = io.StringIO()
    settings = {**SETTINGS, **options}
    if "ranpac" in settings["method"]:  # well below the images of a class: the solution is as exact as the features
        settings.setdefault("method_options", ["ranpac.width=20"])
    benchmark.run(Config(out=str(folder), **settings), Console(file=output, width=300))
    return output.getvalue()


def results(folder: Path) -> dict[str, list]:
    """What each experiment has found out."""
    found = {}
    for file in sorted(folder.glob("*/results.json")):
        runs = json.loads(file.read_text())["runs"]
        found[file.parent.name] = [(run["accuracy_matrix"], run["forgetting"]) for run in runs]
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    """All trained classifiers, backbones included, by name."""
    found = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        for name, value in load_file(file).items():
            found[f"{file.parent.name}/{name}"] = value
    return found


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative difference of any tensor, by its norm."""
    assert ours.keys() == theirs.keys()
    assert ours
    return max(
        float((ours[name].double() - value.double()).norm() / value.double().norm().clamp(min=1e-12))
        for name, value in theirs.items()
    )
