"""What a sweep would do, before it does it: its runs, what they share, and how long they may take."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from mist_ext.config import Config
from mist_ext.data.source import Source
from mist_ext.data.stand_in import stand_in
from mist_ext.report.numbers import duration, plural
from mist_ext.report.table import Tables
from mist_ext.sweep.estimate import Tasks, estimate
from mist_ext.sweep.part import Part
from mist_ext.sweep.plan_tables import Plan, Planned
from mist_ext.sweep.point import Point
from mist_ext.sweep.point_results import finished
from mist_ext.sweep.run import at_a_time, check_points, prepared
from mist_ext.sweep.timing import method_kind, time_method, time_tuning, tuning_kind
from mist_ext.system.cores import cores
from mist_ext.system.names import say
from mist_ext.system.progress import Progress


def plan(
    grid: str | os.PathLike[str],
    out: str | os.PathLike[str],
    jobs: int | None = None,
    resume: bool = False,
    console: Console | None = None,
    part: Part | None = None,
    data_root: str | None = None,
) -> Tables:
    """Say what `sweep` would do with the same arguments, and estimate what it would take; nothing is written.

    A few steps of each kind of run are timed: with its tuner, backbone and methods, on noise of the size of the data
    set's images. Data that is not there is taken to be as large as it was published.

    Returns
    -------
    Tables
        The runs, and what was timed.

    Raises
    ------
    ValueError, FileNotFoundError, FileExistsError
        As `sweep` raises them.
    """
    console = console or Console()
    folder = Path(out)
    planned = prepared(grid, folder, jobs, resume, part, data_root)
    sources = _Sources()
    on_gpu = check_points(planned.points, console, sources.of)
    for told in planned.unused:
        say(console, told, "yellow")
    waiting = [point for point in planned.points if not finished(folder / point.name, point)]
    jobs = at_a_time(jobs, len(waiting), on_gpu)
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:  # as each of the processes will have
        torch.set_num_threads(max(1, cores() // jobs))
    try:
        tunings, methods = _timed([point.options for point in waiting], sources, console)
    finally:
        threads = torch.get_num_threads()
        torch.set_num_threads(before)
    start = _start() if waiting else 0.0
    runs = [_planned(point, sources, tunings, methods, start) for point in waiting]
    where = torch.cuda.get_device_name() if on_gpu else f"CPU, {plural(threads, 'thread')} a run"
    device = torch.device("cuda" if on_gpu else "cpu")
    return Plan(planned, runs, tunings, methods, jobs, device, where, sources.remarks).tables


class _Sources:
    """The stand-ins of data sets, each made once."""

    def __init__(self) -> None:
        self._made: dict[Any, Source] = {}
        self.remarks: list[str] = []

    def of(self, options: Config) -> Source:
        key = (options.data, options.data_root, options.test_fraction)
        if key not in self._made:
            self._made[key], remark = stand_in(*key)
            self.remarks += [remark] if remark else []
        return self._made[key]


def _timed(options: Sequence[Config], sources: _Sources, console: Console) -> tuple[dict, dict]:
    """Time each kind of tuning and of method once, with the options of the first run that has it."""
    tunings: dict[Any, Config] = {}
    methods: dict[Any, tuple[str, Config]] = {}
    for each in options:
        tunings.setdefault(tuning_kind(each), each)
        for name in each.method:
            methods.setdefault(method_kind(each, name), (name, each))
    tuning_times, method_times = {}, {}
    with Progress(console, len(tunings) + len(methods)) as progress:
        for kind, each in tunings.items():
            progress.begin(f"timing tuner {each.tuner[0]}")
            tuning_times[kind] = spent = time_tuning(each, sources.of(each), progress.track)
            progress.advance(f"{duration(spent.step)} a step" if spent.paces else "nothing is trained")
        for kind, (name, each) in methods.items():
            progress.begin(f"timing method {name}")
            method_times[kind] = found = time_method(each, name, sources.of(each), progress.track)
            progress.advance(f"{1 / found.extraction[0]:.3g} images a second")
    return tuning_times, method_times


def _start() -> float:
    """Return the seconds until the process of a run has loaded what it needs."""
    since = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mist_ext.sweep.worker, mist_ext.runs.seed_run, timm"], check=True)
    return time.perf_counter() - since


def _planned(point: Point, sources: _Sources, tunings: Mapping, methods: Mapping, start: float) -> Planned:
    options = point.options
    own = {name: methods[method_kind(options, name)] for name in options.method}
    tasks = Tasks.of(options, sources.of(options), own[options.method[0]].input_size)
    return Planned(point, tasks, estimate(options, tasks, tunings[tuning_kind(options)], own, start))
