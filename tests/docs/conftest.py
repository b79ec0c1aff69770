"""The desk of somebody who reads a page: the folders and files that its examples name, in small."""

from __future__ import annotations

import pkgutil
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import forked
import miniatures
import pytest
import torch
from torch import nn

from mist_ext import Selection
from mist_ext.cli import main
from mist_ext.data import renditions
from mist_ext.data.source import Source
from mist_ext.sweep import pool

ROOT = Path(__file__).parents[2]
BIRDS = ["dunlin", "egret", "grebe", "heron", "ibis", "kestrel", "lapwing", "osprey", "stork", "swift"]
MY_YAML = "data: folder:my/images\ntuner: [none]\nmethod: [simplecil]\nclasses_per_task: 5\n"


def every_twentieth_image(load: Callable[[], Source]) -> Source:
    """What is left of the embedded data."""
    source = load()
    train, test = (part.subset(torch.arange(0, len(part), 20)) for part in (source.train, source.test))
    return replace(source, train=train, test=test)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A folder with images and a run on them, which is made where a page speaks of a run that is there."""
    folder = tmp_path_factory.mktemp("reader")
    miniatures.class_folders(folder / "my" / "images", BIRDS, {"": 6})

    def made() -> Path:
        if not (folder / "runs").exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setattr("mist_ext.runs.benchmark.write_reports", lambda _: None)
                options = ["--classes-per-task", "5", "--seeds", "1", "--epochs", "2", "--workers", "0"]
                assert main(["run", "--data", "folder:my/images", *options, "--out", "runs/A"]) == 0
        return folder

    return made


@pytest.fixture
def desk(
    finished_run: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shallow: None
) -> Callable[[str, bool], None]:
    """Makes the current folder one in which the commands of a page, given as text, find what they name."""

    def laid(page: str, slow: bool) -> None:
        miniatures.class_folders(tmp_path / "my" / "images", BIRDS, {"": 6})
        for name in ("runs/A", "runs/B"):
            if name in page and f"--out {name}" not in page:
                shutil.copytree(finished_run() / "runs" / "A", tmp_path / name)
        miniatures.picture(3, 99).save(tmp_path / "photo.jpg")
        (tmp_path / "my.yaml").write_text(MY_YAML)
        if slow and "--data-root DATA" in page:
            miniatures.cub200(tmp_path / "DATA")
            miniatures.cifar100(tmp_path / "DATA")
        for name in ("bench", "tests", "csrc", "setup.py"):
            (tmp_path / name).symlink_to(ROOT / name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(pool, "subprocess", forked.SUBPROCESS)
        for name in ("digits", "glyphs"):
            whole = f"mist_ext.data.{name}.{name}"
            monkeypatch.setattr(whole, partial(every_twentieth_image, pkgutil.resolve_name(whole)))
        monkeypatch.setattr(renditions, "TRAIN_PER_CLASS", 3)
        monkeypatch.setattr(renditions, "TEST_PER_CLASS", 1)

    return laid


@pytest.fixture
def namespace() -> dict[str, Any]:
    """What a reader has before an example begins: a model, data, a loss; and what an earlier example made."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 100), nn.ReLU(), nn.Linear(100, 5))
    loader = [(torch.randn(16, 40), torch.randint(5, (16,))) for _ in range(2)]
    selection = Selection.magnitude(model.named_parameters(), 0.05)
    return {"model": model, "loader": loader, "loss_function": nn.functional.cross_entropy, "selection": selection}


@pytest.fixture
def one_process() -> Callable[[], AbstractContextManager[None]]:
    """Makes a group of one process, for the examples of several; forks are to find none."""

    @contextmanager
    def group() -> Iterator[None]:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()

    return group
