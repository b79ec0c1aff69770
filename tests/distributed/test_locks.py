"""One process at a time works in a folder, whichever way each of two was started."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from processes import Failed, outcomes_of
from rich.console import Console
from slow import first_is_quick
from small_runs import run
from stopping import stop_at

from mist_ext.runs import benchmark
from mist_ext.runs.interruption import Checkpointer, Interrupted
from mist_ext.sweep import pool
from mist_ext.sweep.run import sweep
from mist_ext.system import lock

PROCESSES = multiprocessing.get_context("fork")


def begin(out: Path, **options) -> None:
    run(out, method=["simplecil"], checkpoint_every="1h", **options)


def go_on(out: Path) -> None:
    benchmark.resume(out, Console(quiet=True))


def torchrun(out: Path, **options) -> None:
    first, _ = outcomes_of(2, lambda _: begin(out, **options))
    if isinstance(first, Failed):
        raise ValueError(first)


def start_sweep(out: Path, resume: bool = False) -> None:
    grid = out.with_suffix(".yaml")
    grid.write_text(yaml.safe_dump({"fixed": {"method": ["simplecil"]}, "axes": {"tuner": ["none"], "seeds": [1]}}))
    sweep(grid, out, 1, resume, Console(file=io.StringIO()))


HOLDERS: dict[str, Callable[[Path], object]] = {
    "a run": begin,
    "a run that overwrites": lambda out: begin(out, overwrite=True),
    "a run that goes on": go_on,
    "a torchrun": torchrun,
    "a sweep": start_sweep,
}
USED, BUSY = "is already used", "another process works in"
CONTENDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a run": (begin, USED),
    "a run that overwrites": (lambda out: begin(out, overwrite=True), BUSY),
    "a run that goes on": (go_on, BUSY),
    "a torchrun": (torchrun, USED),
    "a torchrun that overwrites": (lambda out: torchrun(out, overwrite=True), BUSY),
    "a sweep": (start_sweep, USED),
    "a sweep that goes on": (lambda out: start_sweep(out, resume=True), "no sweep was begun in"),
}
IN_A_SWEEP = {  # which is no run's folder, whether somebody works there or not
    "a run that overwrites": "holds what no run has written there: grid.yaml",
    "a run that goes on": "no run was begun in",
    "a torchrun that overwrites": "holds what no run has written there: grid.yaml",
    "a sweep that goes on": BUSY,
}


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start_and_wait(monkeypatch: pytest.MonkeyPatch, work: Callable[[Path], object], out: Path) -> int:
    """A process of a group of its own that waits in the midst of a run, or of a sweep; returns its number."""
    arrived = out.with_name("arrived")

    def wait(*_: object) -> None:
        arrived.touch()
        time.sleep(300)

    def main() -> None:
        os.setsid()
        work(out)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save_if_due", wait)
        patched.setattr(pool, "_start", wait)
        process = PROCESSES.Process(target=main)
        process.start()
    deadline = time.monotonic() + 100
    while not arrived.exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    return process.pid


@pytest.mark.parametrize("holder", first_is_quick(HOLDERS))
def test_a_folder_in_which_one_works_is_refused_to_every_other(
    holder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if holder in ("a run that overwrites", "a run that goes on"):
        with monkeypatch.context() as patched:
            stop_at(patched, 2, rank=0)
            with pytest.raises(Interrupted):
                begin(out)
    group = start_and_wait(monkeypatch, HOLDERS[holder], out)
    try:
        before = content(out)
        for name, (work, told) in CONTENDERS.items():
            told = IN_A_SWEEP.get(name, told) if holder == "a sweep" else told
            with pytest.raises((ValueError, OSError), match=told):
                work(out)
            assert content(out) == before, name
    finally:
        os.killpg(group, signal.SIGKILL)
        os.waitpid(group, 0)
    with lock.locked(out, wait=True):  # a kill gives the folder free
        pass
    if holder != "a sweep":
        go_on(out)


def test_the_first_of_two_that_come_at_once_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is looked at again once it is locked."""
    original, out = lock.locked, tmp_path / "out"

    def overtaken(folder: Path, wait: bool = False):
        monkeypatch.setattr(lock, "locked", original)
        begin(out)  # meanwhile
        return original(folder, wait)

    monkeypatch.setattr(lock, "locked", overtaken)
    with pytest.raises(FileExistsError, match=USED):
        begin(out, tuner=["none"])
    assert not list(out.glob("*none*"))


def test_a_lock_waits_for_nothing_but_its_holder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / lock.FILE)
    with lock.locked(tmp_path), pytest.raises(ValueError, match=BUSY), lock.locked(tmp_path):
        pass
