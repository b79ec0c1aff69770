"""Every example of docs/extending.md is run as it stands: from Python, and by the command through entry points."""

from __future__ import annotations

import configparser
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mist_ext import backbones, data, registry
from mist_ext.config import TuningOptions
from mist_ext.data.stream import Stream

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
SCREEN = 50  # lines


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every module that the page shows."""
    for block in blocks(TEXT):
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block, encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registries = (registry.TUNERS, registry.METHODS, registry.SOURCES)
    before = [dict(known) for known in registries]
    yield tmp_path
    for known, names in zip(registries, before, strict=True):  # what the page adds to them does not stay
        known.clear()
        known.update(names)


def accuracy(folder: Path, experiment: str) -> float:
    result = json.loads((folder / experiment / "results.json").read_text())
    return result["summary"]["last_accuracy"]["mean"]


@pytest.mark.parametrize(
    ("section", "experiments"),
    [
        ("A method", {"runs/method/digits-none-nearest_mean": 70}),
        ("A tuner", {"runs/tuner/digits-last_block-simplecil": 70}),
        ("A data set", {"runs/data/stripes-none-simplecil": 60}),
    ],
)
def test_an_example_of_a_section_runs_and_learns(
    section: str, experiments: dict[str, float], modules: Path, every_nth_digit: Callable
) -> None:
    every_nth_digit(3)
    assert len(SECTIONS[section].splitlines()) <= SCREEN
    examples = [block for block in blocks(SECTIONS[section]) if not block.startswith("# ")]
    assert len(examples) == 1
    exec(examples[0], {})
    for experiment, least in experiments.items():
        assert accuracy(modules, experiment) > least


def test_the_tuner_of_the_page_moves_the_last_block_alone(modules: Path) -> None:
    backbone = backbones.create("vit_nano")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    source = data.load("digits")
    few = replace(source, train=source.train.subset(torch.arange(0, 400)))
    images = Stream(few, 5, 1).tasks[0].train
    pkgutil.resolve_name("last_block:LastBlock")(backbone, TuningOptions(epochs=1), 1).tune(images)
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    last = f"blocks.{len(backbones.blocks(backbone)) - 1}."
    assert moved
    assert all(name.startswith(last) for name in moved)


@pytest.mark.slow
def test_the_command_finds_what_entry_points_declare(modules: Path) -> None:
    declared = configparser.ConfigParser()
    declared.read_string(blocks(TEXT, "toml")[0])
    lines = []
    for section in declared.sections():
        lines.append(f"[{section.removeprefix('project.entry-points.').strip(chr(34))}]")
        lines += [f"{name} = {value.strip(chr(34))}" for name, value in declared[section].items()]
    installed = modules / "mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-W", "ignore", "-m", "mist_ext", "run", "--data", "stripes", "--tuner", "last_block"]
    command += ["--method", "nearest_mean", "--seeds", "1", "--epochs", "1", "--out", "out"]
    paths = os.pathsep.join([str(modules), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert accuracy(modules / "out", "stripes-last_block-nearest_mean") > 60
