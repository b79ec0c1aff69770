"""``mist delta show``: what deltas change, and what they share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mist_ext import report
from mist_ext.delta_commands import files
from mist_ext.deltas import TaskDelta
from mist_ext.report.delta_summary import DeltaSummary
from mist_ext.report.figures.deltas import draw_summary
from mist_ext.report.figures.style import plain
from mist_ext.report.renderers.terminal import Terminal
from mist_ext.system.files import write_atomically
from mist_ext.system.names import printable_lines, say

FIGURES = (".png", ".svg")


def show(
    given: Sequence[str], form: str, figure: str | None, console: Console, *, seed: int | None, overwrite: bool
) -> None:
    """Print tables of deltas, and draw them.

    Parameters
    ----------
    given : sequence of str
        As `files.deltas` reads them, with ``seed``.
    form : str
        ``text``, or one of `report.FORMS`, in which nothing else is printed.
    figure : str or None
        A PNG or SVG to write.
    console : Console
    seed : int or None
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If a delta cannot be read, or the figure cannot be written.
    """
    path = None if figure is None else files.check_output(figure, overwrite, FIGURES)
    summary = DeltaSummary(_named(files.deltas(given, seed)))
    tables = summary.tables()
    if form == "text":
        console.print(Terminal(tables))
    else:
        sys.stdout.write(printable_lines(report.FORMS[form](tables)))
    if path is not None:
        drawing = draw_summary(summary, _title(list(summary.deltas.values())))
        write_atomically(path, drawing.png() if path.suffix == ".png" else drawing.svg)
        if form == "text":
            say(console, f"Figure: {figure}")


def _title(deltas: list[TaskDelta]) -> str:
    """Say which data and tuner deltas are of, where they tell and agree."""
    origins = {(delta.info.get("data"), delta.info.get("tuner")) for delta in deltas}
    data, tuner = origins.pop()
    return "deltas" if origins or not (data and tuner) else plain(f"{data} · {tuner}")


def _named(deltas: dict[str, TaskDelta]) -> dict[str, TaskDelta]:
    """Name deltas by their tasks' numbers where they are different tasks of one run, else by what tells files apart."""
    tasks = [str(delta.info.get("task", "")) for delta in deltas.values()]
    origins = {(delta.info.get("tuner"), delta.info.get("seed")) for delta in deltas.values()}
    if all(tasks) and len(set(tasks)) == len(tasks) and len(origins) == 1:
        return dict(zip(tasks, deltas.values(), strict=True))
    stems = [Path(path).stem for path in deltas]
    names = stems if len(set(stems)) == len(stems) else list(deltas)
    return dict(zip(names, deltas.values(), strict=True))
