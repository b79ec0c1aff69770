"""The files of a report: each cell's figures, and the tables, figure and page that join all cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mist_ext.files import write_atomically
from mist_ext.report.cells import Cell
from mist_ext.report.figures import Drawing, cell_drawings, comparison
from mist_ext.report.latex import latex
from mist_ext.report.markdown import markdown
from mist_ext.report.page import page
from mist_ext.report.records import csv_lines, json_text
from mist_ext.report.rows import groups, make_rows


def write_report(cells: Sequence[Cell], folder: str | Path | None) -> list[Path]:
    """Write each cell's figures beside its results, and the files that join all cells into a folder.

    Every figure is drawn once. The joint files are `summary.json`, `summary.md`, `summary.csv` and `summary.tex`,
    `accuracy.png` and `accuracy.svg`, and the page `report.html`.

    Parameters
    ----------
    cells : sequence of Cell
        From `read_cells`, at least one.
    folder : path-like or None
        Made if it does not exist; None leaves the joint files out.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    drawings = {id(cell): cell_drawings(cell) for cell in cells}
    files = []
    for cell in cells:
        files += _write(Path(cell.source).parent, _figure_files(drawings[id(cell)]))
    return files if folder is None else [*files, *write_summary(cells, folder, drawings)]


def write_cell_figures(cell: Cell, folder: str | Path) -> list[Path]:
    """Write the figures of one cell, as PNG and SVG.

    Parameters
    ----------
    cell : Cell
        From `read_cells` or `parse_cell`.
    folder : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files written: `accuracy` and `matrix`; where they were recorded also `forgetting`, `selection` and
        `costs`. None where no task is finished.
    """
    return _write(folder, _figure_files(cell_drawings(cell)))


def write_summary(
    cells: Sequence[Cell], folder: str | Path, drawings: Mapping[int, Sequence[Drawing]] | None = None
) -> list[Path]:
    """Write the files that join all cells.

    Parameters
    ----------
    cells : sequence of Cell
        At least one.
    folder : path-like
        Made if it does not exist.
    drawings : mapping of int to sequence of Drawing, optional
        The cells' figures by ``id(cell)``, where they are drawn already.

    Returns
    -------
    list of Path
        The files written. No figure where no cell has a finished task.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    if not cells:
        raise ValueError("no cells to summarise: give at least one run")
    if drawings is None:
        drawings = {id(cell): cell_drawings(cell) for cell in cells}
    rows = make_rows(cells)
    joint = comparison(rows) if groups(rows) else None
    contents: dict[str, bytes | str] = {
        "summary.json": json_text(rows),
        "summary.md": markdown(rows),
        "summary.csv": csv_lines(rows),
        "summary.tex": latex(rows),
        **_figure_files([joint] if joint else []),
        "report.html": page(rows, joint, drawings),
    }
    return _write(folder, contents)


def _figure_files(drawings: Sequence[Drawing]) -> dict[str, bytes | str]:
    return {name: content for drawing in drawings for name, content in drawing.files().items()}


def _write(folder: str | Path, contents: Mapping[str, bytes | str]) -> list[Path]:
    folder = Path(folder)
    if contents:
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
