"""Chains of kills and terminations of two processes, also while they save, end with the bits of a whole run."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from processes import PATIENCE, Failed, outcomes_of, together
from rich.console import Console
from slow import often
from small_runs import run, weights

from mist_ext.runs import benchmark, checkpoint

pytestmark = pytest.mark.slow
SIZE, MOST = 2, 5  # processes; disturbances of a chain
OPTIONS = {"method": ["simplecil"], "batch_size": 12, "epochs": 2, "checkpoint_every": "0s"}
# What a process calls while it writes a checkpoint, and what it says when others have ended.
WRITING = [
    (checkpoint, "write"),  # each rank's own sums
    (checkpoint, "save_file"),
    (checkpoint, "write_atomically"),
    (checkpoint, "sync_folder"),
    (os, "replace"),
    (checkpoint.shutil, "rmtree"),
]
EXPECTED = ("it ended without a word", "Interrupted: ", "LostRank: ")


@dataclass
class Disturbance:
    """Of one start of all processes: drawn by the chain's key."""

    kind: str
    rank: int
    seconds: float
    place: int
    call: int
    before: bool

    @classmethod
    def drawn(cls, draw: random.Random) -> Disturbance:
        kind = draw.choice(["kill one", "kill all", "terminate one", "kill while writing", "kill while writing"])
        place, call = draw.randrange(len(WRITING)), draw.randrange(1, 5)
        rank = draw.randrange(SIZE)
        if kind == "kill while writing" and place > 0:  # which rank 0 alone does
            rank = 0
        return cls(kind, rank, draw.uniform(0.2, 1.6), place, call, draw.random() < 0.5)

    def prepare(self, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process kill itself at a call that writes, if it is the one."""
        if self.kind != "kill while writing" or rank != self.rank:
            return
        module, name = WRITING[self.place]
        original, calls = getattr(module, name), [0]

        def call(*arguments, **options):
            calls[0] += 1
            if calls[0] == self.call and self.before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if calls[0] == self.call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        monkeypatch.setattr(module, name, call)

    def strike(self, pids: list[int]) -> None:
        """Send signals from outside, while the processes work."""
        if self.kind != "kill while writing":
            time.sleep(self.seconds)
            number = signal.SIGTERM if self.kind == "terminate one" else signal.SIGKILL
            for rank, pid in enumerate(pids):
                if self.kind == "kill all" or rank == self.rank:
                    os.kill(pid, number)  # one that has ended is still to be waited for
        end_what_is_left(pids)


def end_what_is_left(pids: list[int]) -> None:
    """Kill what waits for a killed process, half a minute later: torchrun does so too.

    What waits where none was killed is left to wait, and is told of as such.
    """
    left, deadline, patience = set(pids), math.inf, time.monotonic() + PATIENCE
    while left and time.monotonic() < patience:
        for pid in sorted(left):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                left.remove(pid)
                if ended.si_code == os.CLD_KILLED:
                    deadline = min(deadline, time.monotonic() + 30)
        for pid in left if time.monotonic() > deadline else ():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def recorded(folder: Path) -> list:
    """All records of a run but for times and memory."""
    (file,) = folder.glob("*/results.json")
    tasks = [task for one in json.loads(file.read_text())["runs"] for task in one["tasks"]]
    return [{k: v for k, v in task.items() if k not in ("seconds", "peak_memory_bytes")} for task in tasks]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """The folder of a run that nothing disturbs; each is run once."""
    done: dict[bool, Path] = {}

    def folder_of(shard: bool) -> Path:
        if shard not in done:
            done[shard] = tmp_path_factory.mktemp("whole") / "run"
            together(SIZE, lambda _: run(done[shard], shard=shard, **OPTIONS))
        return done[shard]

    return folder_of


@pytest.mark.parametrize("key", [*range(1, 1 + often(1)), "sharded"])
def test_a_chain_of_kills_changes_no_bit(
    key: int | str, whole: Callable[[bool], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, out, shard = random.Random(str(key)), tmp_path / "out", key == "sharded"
    disturbances = [Disturbance.drawn(draw) for _ in range(MOST)]
    for number in range(MOST + 1):
        disturbance = disturbances[number] if number < MOST else None
        begun = (out / "run.yaml").is_file()

        def work(rank: int, disturbance: Disturbance | None = disturbance, begun: bool = begun) -> None:
            if disturbance is not None:
                disturbance.prepare(rank, monkeypatch)
            if begun:
                benchmark.resume(out, Console(quiet=True))
            else:
                run(out, shard=shard, **OPTIONS)

        outcomes = outcomes_of(SIZE, work, disturbance.strike if disturbance else lambda pids: None)
        odd = [
            text for text in map(str, outcomes) if not text.startswith("None") and not any(e in text for e in EXPECTED)
        ]
        assert not odd, (disturbance, odd)
        if not any(isinstance(outcome, Failed) for outcome in outcomes):
            break
    assert number > 1  # it was disturbed more than once
    ours, theirs = weights(out), weights(whole(shard))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert recorded(out) == recorded(whole(shard))
    assert not (out / "checkpoint").exists()
