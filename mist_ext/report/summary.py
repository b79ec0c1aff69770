"""The files of a report: each cell's figures, and the tables, figure and page that join all cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mist_ext.report import digests, text
from mist_ext.report.cells import Cell
from mist_ext.report.figures import Drawing, cell_drawings, comparison, figure_names
from mist_ext.report.latex import latex
from mist_ext.report.markdown import markdown
from mist_ext.report.page import configuration, page
from mist_ext.report.records import csv_lines, json_text
from mist_ext.report.rows import Row, groups, make_rows
from mist_ext.system.files import write_atomically

PAGE = "report.html"


def write_report(
    cells: Sequence[Cell], folder: str | Path | None, figures: bool = True, tell: Callable[[str], None] | None = None
) -> list[Path]:
    """Write each cell's figures beside its results, and the files that join all cells into a folder.

    Every figure is drawn once, and not at all where its files show what they would show again. The joint files are
    `summary.json`, `summary.md`, `summary.csv` and `summary.tex`, `accuracy.png` and `accuracy.svg`, and the page
    `report.html`.

    Parameters
    ----------
    cells : sequence of Cell
        From `read_cells`, at least one.
    folder : path-like or None
        Made if it does not exist; None leaves the joint files out.
    figures : bool
        Whether there are figures, in files and on the page.
    tell : callable, optional
        Is told where figures are that cannot stand beside their results.

    Returns
    -------
    list of Path
        The files, those that were up to date among them.

    Raises
    ------
    ValueError
        If there is no cell.
    PermissionError
        If there is no place to write to; the message says what to do.
    """
    drawn = _Drawn()
    files = []
    for cell in cells if figures else ():
        files += _write_figures(cell, _figures_home(cell, folder, tell), drawn)
    return files if folder is None else [*files, *write_summary(cells, folder, figures, drawn)]


def write_cell_figures(cell: Cell, folder: str | Path) -> list[Path]:
    """Write the figures of one cell, as PNG and SVG, unless they are there and up to date.

    Parameters
    ----------
    cell : Cell
        From `read_cells` or `parse_cell`.
    folder : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files: `accuracy` and `matrix`; where they were recorded also `forgetting`, `selection` and `costs`. None
        where no task is finished.
    """
    return _write_figures(cell, Path(folder), _Drawn())


class _Drawn(dict[int, list[Drawing]]):
    """The figures of each cell, by ``id(cell)``: drawn when they are asked for, once."""

    def of(self, cell: Cell) -> list[Drawing]:
        if id(cell) not in self:
            self[id(cell)] = cell_drawings(cell)
        return self[id(cell)]


def write_summary(
    cells: Sequence[Cell], folder: str | Path, figures: bool = True, drawn: _Drawn | None = None
) -> list[Path]:
    """Write the files that join all cells.

    Parameters
    ----------
    cells : sequence of Cell
        At least one.
    folder : path-like
        Made if it does not exist.
    figures : bool
        Whether there are figures, in files and on the page.
    drawn : optional
        The cells' figures that are drawn already.

    Returns
    -------
    list of Path
        The files. No figure where no cell has a finished task.

    Raises
    ------
    ValueError
        If there is no cell.
    PermissionError
        If the folder cannot be written.
    """
    if not cells:
        raise ValueError("no cells to summarise: give at least one run")
    folder = Path(folder)
    if not _writable(folder):
        raise PermissionError(f"the report cannot be written to {folder}: no permission; give a folder of yours: --out")
    rows = make_rows(cells)
    contents: dict[str, bytes | str] = {
        "summary.json": json_text(rows),
        "summary.md": markdown(rows),
        "summary.csv": csv_lines(rows),
        "summary.tex": latex(rows),
    }
    digest = _page_digest(rows, figures)
    shown = ["accuracy.png", "accuracy.svg"] if figures and groups(rows) else []
    if not all(digests.holds(folder / name, digest) for name in (*shown, PAGE)):
        drawn = (drawn or _Drawn()) if figures else None
        joint = replace(comparison(rows), digest=digest) if shown else None
        contents |= joint.files() if joint else {}
        contents[PAGE] = page(rows, joint, lambda cell: drawn.of(cell) if drawn is not None else [], digest)
    _write(folder, contents)
    return [folder / name for name in dict.fromkeys((*contents, *shown, PAGE))]


def _page_digest(rows: Sequence[Row], figures: bool) -> str:
    """Of all that the page and the figure that joins all cells show."""
    shown = [[row.label, row.cell.config, row.cell.runs, row.cell.environment, configuration(row.cell)] for row in rows]
    return digests.of_parts(shown, text.notes(rows), figures)


def _figures_home(cell: Cell, folder: str | Path | None, tell: Callable[[str], None] | None) -> Path:
    """Where a cell's figures are written: beside its results, or in a folder of that name where that cannot be."""
    own = Path(cell.source).parent
    if _writable(own) or _up_to_date(cell, own):
        return own
    if folder is None or not _writable(Path(folder)):
        raise PermissionError(
            f"the figures of {own} cannot be written there: no permission; give a folder of yours, --out, or leave "
            "them out, --no-figures"
        )
    absolute = own.resolve()
    home = Path(folder) / absolute.parent.name / absolute.name
    if tell is not None:
        tell(f"{own} cannot be written; its figures are in {home}")
    return home


def _writable(folder: Path) -> bool:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)


def _up_to_date(cell: Cell, folder: Path) -> bool:
    digest = digests.of_cell(cell)
    return all(digests.holds(folder / name, digest) for name in _file_names(cell))


def _file_names(cell: Cell) -> list[str]:
    return [f"{name}.{form}" for name in figure_names(cell) for form in ("png", "svg")]


def _write_figures(cell: Cell, folder: Path, drawn: _Drawn) -> list[Path]:
    if not _up_to_date(cell, folder):
        contents: dict[str, bytes | str] = {}
        for drawing in drawn.of(cell):
            contents |= drawing.files()
        _write(folder, contents)
    return [folder / name for name in _file_names(cell)]


def _write(folder: Path, contents: Mapping[str, bytes | str]) -> None:
    if contents:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
