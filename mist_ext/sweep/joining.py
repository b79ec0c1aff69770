"""The folders of a sweep's parts, joined in one table, figure and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mist_ext import config
from mist_ext.report.parsing import ResultsError
from mist_ext.report.reading import GRID
from mist_ext.sweep.grid import Grid, read_grid
from mist_ext.sweep.point_results import experiments, failure, finished
from mist_ext.sweep.sweep_table import SweepTable
from mist_ext.sweep.writing import make_table


def join(folders: Sequence[str]) -> SweepTable:
    """Make the table of a sweep whose points are in several folders, as if one machine had run it.

    A point that is in several folders counts once, as the first of them has it.

    Parameters
    ----------
    folders : sequence of str
        The output folders of the parts; one that holds the whole sweep will do.

    Raises
    ------
    ResultsError
        If the folders are of different sweeps, no point is finished, or results are damaged.
    """
    places = list(map(Path, folders))
    grid = _common_grid(places)
    results, failures, missing = {}, {}, []
    for point in grid.points:
        place = next((place for place in places if finished(place / point.name, point)), None)
        if place is not None:
            results[point.name] = experiments(place, point)
        elif errors := [error for each in places if (error := failure(each / point.name))]:
            failures[point.name] = errors[0]
        else:
            missing.append(point.name)
    if not results:
        raise ResultsError(
            f"no run of the sweep in {', '.join(folders)} is finished; go on with it: mist sweep {places[0] / GRID} "
            f"--out {places[0]} --resume"
        )
    return make_table(grid, results, failures, missing)


def _common_grid(places: Sequence[Path]) -> Grid:
    """Return the grid that all parts were begun with; the folder of the data may be another on each machine."""
    first, *others = (read_grid(place / GRID) for place in places)
    for place, other in zip(places[1:], others, strict=True):
        for ours, theirs in zip(first.points, other.points, strict=False):
            if ours.name != theirs.name or len(first.points) != len(other.points):
                raise ResultsError(
                    f"{place} is of another sweep than {places[0]}: their points differ; report it alone"
                )
            if different := config.differing(theirs.options, ours.options):
                raise ResultsError(
                    f"{place} is of another sweep than {places[0]}: at {ours.name} {different[0]}; report it alone"
                )
    return first
