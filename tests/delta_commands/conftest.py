"""The command `mist delta`, and files for it: a base, three successive tasks, and a run that left its deltas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_runs
from safetensors.torch import save_file
from torch import Tensor, nn
from tuned_models import chain_of_tasks

from mist_ext import cli
from mist_ext.deltas import TaskDelta


@pytest.fixture
def mist(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command below `mist delta`; return its exit status, and what it printed on standard output and error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            status = cli.main(["delta", *map(str, arguments)])
        except SystemExit as end:
            status = end.code or 0
        output, errors = capsys.readouterr()
        return int(status), " ".join(output.split()), errors

    return run


@dataclass
class Files:
    """Checkpoints before and after each of three tasks, and the tasks' deltas."""

    folder: Path
    models: list[nn.Module]
    deltas: list[TaskDelta]

    @property
    def checkpoints(self) -> list[str]:
        return [str(self.folder / f"{number}.safetensors") for number in range(4)]

    @property
    def paths(self) -> list[str]:
        return [str(self.folder / f"delta{number}.safetensors") for number in (1, 2, 3)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = Files(tmp_path_factory.mktemp("deltas"), *chain_of_tasks(3))
    for path, model in zip(made.checkpoints, made.models, strict=True):
        save_file(model.state_dict(), path)
    for path, delta in zip(made.paths, made.deltas, strict=True):
        delta.save(path)
    return made


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment of `mist run --deltas`, of two tasks."""
    out = tmp_path_factory.mktemp("run") / "run"
    options = {"epochs": 2, "images_per_class": 12, "method": ["simplecil"], "save": "first", "deltas": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mist_ext.runs.benchmark.write_reports", lambda _: None)
        small_runs.run(out, data="digits", **options)
    return out / "digits-mist-simplecil"


def same_tensors(path: str | Path, state: dict[str, Tensor], same_bits: Callable) -> bool:
    """Whether a checkpoint has these tensors, bit for bit."""
    from safetensors.torch import load_file

    found = load_file(path)
    return found.keys() == state.keys() and all(same_bits(found[name], value) for name, value in state.items())
