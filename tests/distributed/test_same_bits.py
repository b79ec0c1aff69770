"""A run of several processes that goes on with as many ends with the bits of one that was never interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import together
from rich.console import Console
from small_runs import run, weights
from stopping import stop_at

from mist_ext.distributed import partial_sums
from mist_ext.results import manifest
from mist_ext.runs import benchmark, checkpoint
from mist_ext.runs.interruption import Interrupted

OPTIONS = {"method": ["simplecil"], "batch_size": 12, "epochs": 2}  # five batches an epoch, the last one's turn is odd


def interrupted(folder: Path, size: int, calls: list[int], monkeypatch: pytest.MonkeyPatch, **options) -> None:
    """Stop a run before some calls of `save_if_due`, counted from each start, and go on."""

    def begin() -> None:
        run(folder, checkpoint_every="1h", **OPTIONS, **options)

    def go_on() -> None:
        benchmark.resume(folder, Console(quiet=True))

    def stopped(work: Callable[[], None], call: int) -> None:
        stop_at(monkeypatch, call, rank=size - 1)
        with pytest.raises(Interrupted):
            work()

    for start, call in enumerate(calls):
        together(size, lambda _, work=go_on if start else begin, at=call: stopped(work, at))
    together(size, lambda _: go_on())


def recorded(folder: Path) -> list:
    """All records of a run, the shares of its scores included, but for times and memory."""
    (file,) = folder.glob("*/results.json")
    tasks = [task for one in json.loads(file.read_text())["runs"] for task in one["tasks"]]
    return [{k: v for k, v in task.items() if k not in ("seconds", "peak_memory_bytes")} for task in tasks]


@pytest.mark.parametrize(
    ("size", "calls", "options"),
    [
        pytest.param(2, [2, 1], {}, id="scoring, twice"),
        pytest.param(3, [2, 5], {}, id="3 processes", marks=pytest.mark.slow),
        pytest.param(2, [2], {"shard": True}, id="sharded", marks=pytest.mark.slow),
        pytest.param(3, [2, 2], {"tuner": ["full"]}, id="whole gradients", marks=pytest.mark.slow),
        pytest.param(3, [4, 2], {"dynamics": "published"}, id="published", marks=pytest.mark.slow),
    ],
)
def test_an_interruption_changes_no_bit(
    size: int, calls: list[int], options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together(size, lambda _: run(tmp_path / "whole", **OPTIONS, **options))
    interrupted(tmp_path / "run", size, calls, monkeypatch, **options)
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert recorded(tmp_path / "run") == recorded(tmp_path / "whole")


def sums(rank: int) -> torch.Tensor:
    return torch.rand(5, 7, generator=torch.Generator().manual_seed(rank))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (3, 3), (3, 2), (2, 3), (1, 3), (4, 1)])
def test_sums_of_ranks_come_back_whatever_their_number(before: int, after: int, tmp_path: Path) -> None:
    def save(rank: int) -> None:
        checkpoint.save(tmp_path / manifest.CHECKPOINTS, {"sums": partial_sums.saved(sums(rank))})

    def load(_rank: int) -> torch.Tensor:
        state = checkpoint.load_latest(tmp_path / manifest.CHECKPOINTS, print)
        assert state is not None
        return partial_sums.restored(state["sums"], 35)

    together(before, save)
    loaded = together(after, load)
    if before == after:
        assert all(torch.equal(mine, sums(rank).view(-1)) for rank, mine in enumerate(loaded))
    together_before = sum(sums(rank).double().view(-1) for rank in range(before))
    assert torch.allclose(sum(part.double() for part in loaded), together_before, rtol=1e-6)
