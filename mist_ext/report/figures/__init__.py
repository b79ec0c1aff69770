"""All figures of a report, one kind per file. matplotlib is imported when one is drawn."""

from __future__ import annotations

from dataclasses import replace

from mist_ext.report import digests
from mist_ext.report.cells import Cell
from mist_ext.report.figures import accuracy, classes, costs, layers, matrix
from mist_ext.report.figures.comparison import comparison
from mist_ext.report.figures.drawing import Drawing

__all__ = ["Drawing", "cell_drawings", "comparison", "figure_names"]

_KINDS = {"accuracy": accuracy, "matrix": matrix, "forgetting": classes, "selection": layers, "costs": costs}


def figure_names(cell: Cell) -> list[str]:
    """The names of a cell's figures; those whose numbers were not recorded are left out."""
    return [name for name, kind in _KINDS.items() if cell.tasks and kind.has_figure(cell)]


def cell_drawings(cell: Cell) -> list[Drawing]:
    """Draw them."""
    digest = digests.of_cell(cell)
    return [replace(_KINDS[name].draw(cell), digest=digest) for name in figure_names(cell)]
