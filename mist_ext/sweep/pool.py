"""Runs points in processes of their own, so many at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mist_ext.config import to_yaml
from mist_ext.runs import run_folder
from mist_ext.runs.interruption import SIGNALS, Interrupted
from mist_ext.sweep.point import Point
from mist_ext.sweep.point_results import ERROR, failure
from mist_ext.system.cores import cores
from mist_ext.system.files import write_atomically

OUTPUT = "output.txt"  # in a point's folder: all that it printed
_POLL = 0.1  # seconds


@dataclass
class Ended:
    """A point whose process ended.

    Attributes
    ----------
    error : str or None
        What went wrong, in one line.
    """

    point: Point
    error: str | None


def run_points(
    points: Sequence[Point],
    out: Path,
    jobs: int,
    say: Callable[[str], None],
    state: Callable[[int], None],
) -> Iterator[Ended]:
    """Run points, each in its folder below ``out``, and yield each as it ends.

    Parameters
    ----------
    points : sequence of Point
        Begun ones go on where they are.
    out : Path
    jobs : int
        So many at a time; they share the cores.
    say : callable
        Shows a message.
    state : callable
        Is given the number of running points whenever it changes.

    Raises
    ------
    Interrupted
        On SIGINT or SIGTERM, once all running points have saved their state and ended. A second signal reaches them,
        too: they stop at once.
    """
    # Threads of more processes than cores wait for each other; who sets the number themselves has it.
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **os.environ}
    waiting = list(points)
    running: dict[Any, Point] = {}
    asked: list[int] = []

    def stop(number: int) -> None:
        if not asked:
            say("stopping: running points save their state; once more stops at once")
        asked.append(number)
        for process in running:
            process.send_signal(signal.SIGTERM)

    with _answering(stop):
        try:
            while running or (waiting and not asked):
                while waiting and len(running) < jobs and not asked:
                    point = waiting.pop(0)
                    process = _start(point, out / point.name, environment)
                    running[process] = point
                    if asked:  # while it was being started
                        process.send_signal(signal.SIGTERM)
                    state(len(running))
                for process in [process for process in running if process.poll() is not None]:
                    point = running.pop(process)
                    process.stdin.close()
                    state(len(running))
                    if not (asked and process.returncode):
                        yield Ended(point, _error(process.returncode, out / point.name))
                time.sleep(_POLL)
        finally:  # an error of ours: no process is left behind
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    if asked:
        raise Interrupted(asked[0], out)


def _start(point: Point, folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    options = run_folder.absolute(replace(point.options, out=str(folder), overwrite=True))
    if not (folder / run_folder.CONFIG).is_file():  # begun here, so that an error of the process has its place
        with run_folder.begun(options):
            pass
    else:  # what results do not depend on may have changed, such as where the data is
        write_atomically(folder / run_folder.CONFIG, to_yaml(options))
    (folder / ERROR).unlink(missing_ok=True)
    with open(folder / OUTPUT, "a", encoding="utf-8") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mist_ext.sweep.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it once, through us, not twice
        )


def _error(status: int, folder: Path) -> str | None:
    if status == 0:
        return None
    file = folder / ERROR
    if not file.is_file():  # killed, or it did not get so far as to say why
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        write_atomically(file, f"the process {how}; its last words are in {folder / OUTPUT}\n")
    return failure(folder)


@contextmanager
def _answering(stop: Callable[[int], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to ``stop`` meanwhile."""
    before = {number: signal.signal(number, lambda number, _: stop(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
