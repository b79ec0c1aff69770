"""All figures of a report, one kind per file. matplotlib is imported when one is drawn."""

from __future__ import annotations

from mist_ext.report.cells import Cell
from mist_ext.report.figures import accuracy, classes, costs, layers, matrix
from mist_ext.report.figures.comparison import comparison
from mist_ext.report.figures.drawing import Drawing

__all__ = ["Drawing", "cell_drawings", "comparison"]

_KINDS = (accuracy.draw, matrix.draw, classes.draw, layers.draw, costs.draw)


def cell_drawings(cell: Cell) -> list[Drawing]:
    """Draw a cell's figures; those whose numbers were not recorded are left out."""
    if not cell.tasks:
        return []
    return [drawing for draw in _KINDS if (drawing := draw(cell)) is not None]
