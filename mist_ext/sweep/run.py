"""A sweep from its grid to its table, begun or gone on with."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mist_ext import config
from mist_ext.config import Config, TuningOptions
from mist_ext.report.experiments import Experiment
from mist_ext.report.numbers import plural
from mist_ext.report.reading import GRID
from mist_ext.results import manifest
from mist_ext.runs import run_folder
from mist_ext.sweep.grid import Grid, read_grid
from mist_ext.sweep.part import Part
from mist_ext.sweep.point import Point
from mist_ext.sweep.point_results import experiments, finished
from mist_ext.sweep.pool import run_points
from mist_ext.sweep.sweep_table import SweepTable
from mist_ext.sweep.writing import make_table, write
from mist_ext.system import bounded_files, lock, names
from mist_ext.system.bounded_files import MOST_YAML_BYTES
from mist_ext.system.cores import cores
from mist_ext.system.files import write_atomically
from mist_ext.system.progress import Progress

if TYPE_CHECKING:
    from mist_ext.data.source import Source


def sweep(
    grid: str | os.PathLike[str],
    out: str | os.PathLike[str],
    jobs: int | None = None,
    resume: bool = False,
    console: Console | None = None,
    part: Part | None = None,
    data_root: str | None = None,
) -> SweepTable:
    """Run every point of a grid in a process of its own, and join them in one table.

    A point that fails keeps its error in its folder and stops no other. The table is in ``sweep.json``,
    ``sweep.csv``, ``sweep.md`` and ``sweep.tex``; where exactly one numeric axis was swept, ``sweep.png`` and
    ``sweep.svg`` show it.

    Parameters
    ----------
    grid : path-like
        As `read_grid` takes it.
    out : path-like
        The folder in which each point gets its own.
    jobs : int, optional
        Points that run at a time; by default one for each core, or one where they use a GPU.
    resume : bool
        Skip what is finished in ``out`` and go on with what was interrupted or failed. The grid may have new points.
    console : Console, optional
        Where progress is shown; the terminal by default.
    part : Part, optional
        Run these points alone: those of other parts run on other machines. The table has all that ``out`` holds, and
        `joining.join` makes that of all parts.
    data_root : str, optional
        Takes the place of the grid's own.

    Returns
    -------
    SweepTable

    Raises
    ------
    ValueError
        For a wrong option, before any work; or if ``out`` holds points of other options, or another process works
        there.
    FileNotFoundError
        If there is no such grid, or data is not where it is looked for, before any work.
    FileExistsError
        If ``out`` is used and ``resume`` is not given, or a point's folder holds something else.
    Interrupted
        On SIGINT or SIGTERM; `resume` goes on from there.
    """
    console = console or Console()
    folder = Path(out)
    planned = prepared(grid, folder, jobs, resume, part, data_root)
    on_gpu = check_points(planned.points, console)
    for told in planned.unused:
        names.say(console, told, "yellow")
    folder.mkdir(parents=True, exist_ok=True)
    with lock.locked(folder):
        _check_folder(folder, planned, resume)  # which another sweep may have used meanwhile
        write_atomically(folder / GRID, bounded_files.read_bytes(grid, MOST_YAML_BYTES))
        return _run(planned, folder, jobs, on_gpu, console)


def prepared(
    grid: str | os.PathLike[str], folder: Path, jobs: int | None, resume: bool, part: Part | None, data_root: str | None
) -> Grid:
    """Return the points that a sweep runs or has in its folder; arguments and errors as `sweep` has them."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected 1 or more")
    whole = read_grid(grid, data_root)
    if part is not None:
        own = {point.name for point in part.points(whole)}
        if not own:
            raise ValueError(
                f"part is {part.number}/{part.of}, but {grid} has {len(whole.points)} runs alone; take fewer parts"
            )
        whole = whole.only(lambda point: point.name in own or finished(folder / point.name, point))
    _check_folder(folder, whole, resume)
    return whole


def at_a_time(jobs: int | None, waiting: int, on_gpu: bool) -> int:
    """Return how many points run at a time; by default one for each core, or one where they use a GPU."""
    return jobs or (1 if on_gpu else min(cores(), max(1, waiting)))


def _run(planned: Grid, folder: Path, jobs: int | None, on_gpu: bool, console: Console) -> SweepTable:
    """Run what is not finished, and make the table."""
    results = {
        point.name: experiments(folder, point) for point in planned.points if finished(folder / point.name, point)
    }
    waiting = [point for point in planned.points if point.name not in results]
    jobs = at_a_time(jobs, len(waiting), on_gpu)
    say = partial(names.say, console)

    total = len(planned.points)
    work = f"{plural(total, 'run')} for {plural(planned.experiments, 'experiment')}"
    say(f"{work}, {total - len(waiting)} of them finished; {jobs} at a time")
    failures = {}
    with Progress(console, total, total - len(waiting), phases=False) as progress:
        for ended in run_points(waiting, folder, jobs, say, lambda n: progress.begin(f"{n} running")):
            progress.what = ended.point.name
            if ended.error is None:
                results[ended.point.name] = experiments(folder, ended.point)
                progress.advance(_finding(results[ended.point.name]))
            else:
                failures[ended.point.name] = ended.error
                progress.advance(f"failed: {ended.error}")
    table = make_table(planned, results, failures)
    write(table, folder)
    return table


def _check_folder(folder: Path, grid: Grid, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"output folder {folder} is a file; choose another with --out")
    if not resume and run_folder.used(folder):
        raise FileExistsError(
            f"output folder {folder} is already used; choose another with --out, or go on with it: --resume"
        )
    if run_folder.used(folder) and not (folder / GRID).is_file():
        raise FileExistsError(f"no sweep was begun in {folder}, which is used; choose another with --out")
    for point in grid.points:
        own = folder / point.name
        if run_folder.used(own) and manifest.read(own) is None:
            raise FileExistsError(
                f"{own} is where a run of the sweep belongs, but no run was begun there; move it away, or choose "
                "another folder with --out"
            )
        if (own / run_folder.CONFIG).is_file():
            different = config.differing(run_folder.absolute(point.options), run_folder.read_config(own))
            if different:
                raise ValueError(
                    f"the run in {own} has another configuration: {'; '.join(different)}. Restore the grid, or start "
                    "a new sweep with another --out"
                )


def check_points(
    points: Sequence[Point], console: Console, source: Callable[[Config], Source | None] = lambda options: None
) -> bool:
    """Find before any work what `mist_ext.runs.benchmark` would only find in each run; whether a GPU is used.

    A ``source`` stands in for the data set of a run; by default the data set itself is loaded.
    """
    from mist_ext.runs.context import RunContext

    # What is loaded follows from these; points that share them differ in how they tune alone.
    loading = {"compile", "checkpointing", "precision", "shard"}
    without = {field.name for field in dataclasses.fields(TuningOptions)} - loading
    alike: dict[str, list[Config]] = {}
    for point in points:
        values = dataclasses.asdict(point.options)
        key = repr([value for name, value in values.items() if name not in {*without, "seeds", "save"}])
        alike.setdefault(key, []).append(point.options)
    on_gpu = False
    for first, *others in alike.values():
        on_gpu |= RunContext.of(first, console, source=source(first)).device.type != "cpu"
        _check_tuning(first, others)
    return on_gpu


def _check_tuning(checked: Config, others: Sequence[Config]) -> None:
    """Have the tuners check what differs from options that they have checked, on one backbone for all."""
    from mist_ext import backbones, tuners

    tunings: dict[str, Config] = {}
    for options in (checked, *others):
        same_run = dataclasses.replace(options, seeds=checked.seeds, save=checked.save)
        tunings.setdefault(repr(same_run), options)
    if len(tunings) == 1:
        return
    backbone = backbones.create(checked.backbone, checked.weights)
    for options in tunings.values():
        for name in options.tuner:
            tuners.named(name).check(backbone, options)


def _finding(found: Sequence[Experiment]) -> str:
    return ", ".join(f"{one.method} {one.runs[0].metrics['last_accuracy']:.2f} %" for one in found)
