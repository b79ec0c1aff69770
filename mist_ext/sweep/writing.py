"""The table of a sweep from the results of its points, and the files that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mist_ext.report.experiments import Experiment
from mist_ext.report.figures import Drawing, experiment_drawings
from mist_ext.report.page import page
from mist_ext.report.renderers.latex import latex
from mist_ext.report.renderers.markdown import markdown
from mist_ext.report.renderers.spreadsheet import csv_text
from mist_ext.report.sharing import sharing
from mist_ext.report.writing import PAGE
from mist_ext.sweep.figure import draw, point_label
from mist_ext.sweep.grid import Grid
from mist_ext.sweep.outcomes import make_outcomes
from mist_ext.sweep.sweep_table import SweepTable
from mist_ext.system.files import write_atomically


def make_table(
    grid: Grid, results: Mapping[str, list[Experiment]], failures: dict[str, str], missing: Sequence[str] = ()
) -> SweepTable:
    """Make the table of the points that are finished.

    Parameters
    ----------
    grid : Grid
    results : mapping of str to list of Experiment
        Of the finished points, by name.
    failures : dict of str to str
        Why points failed, by name.
    missing : sequence of str
        The names of those that were not run, or not to their end.
    """
    done = [(point, results[point.name]) for point in grid.points if point.name in results]
    environment = done[0][1][0].environment if done else {}
    shared = sharing(experiment for _, experiments in done for experiment in experiments)
    return SweepTable(grid, make_outcomes(done, grid.redundant), failures, environment, shared, missing)


def write(table: SweepTable, folder: str | Path) -> None:
    """Write a sweep's table in all its forms, and its figure."""
    _write(table, Path(folder), draw(table.grid, table.outcomes))


def write_with_page(table: SweepTable, folder: str | Path | None, figures: bool = True) -> None:
    """Write what `write` does, and a page with the figures of every outcome; no figure where none is wanted.

    A ``folder`` of None writes nothing: the points of a sweep have their own.
    """
    if folder is None:
        return
    joint = draw(table.grid, table.outcomes) if figures else None
    labelled = [replace(one, label=point_label(table.grid, one)) for one in table.outcomes]
    drawings = [experiment_drawings(one.experiment) if figures else [] for one in labelled]
    _write(table, Path(folder), joint, {PAGE: page(labelled, table.tables, joint, drawings)})


def _write(table: SweepTable, folder: Path, drawing: Drawing | None, more: Mapping[str, str] = {}) -> None:
    contents: dict[str, bytes | str] = {
        "sweep.json": table.json(),
        "sweep.csv": csv_text(table.tables),
        "sweep.md": markdown(table.tables),
        "sweep.tex": latex(table.tables),
        **more,
    }
    if drawing is not None:
        contents |= drawing.files()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
