"""Tables and figures from the results of any number of runs.

``read_cells`` reads folders, ``table`` is for the terminal, ``as_text`` for pasting; ``write_report`` writes all files,
``write_cell_figures`` and ``write_summary`` a part of them. Runs that were interrupted are reported as far as they
got, and named.
"""

from __future__ import annotations

from mist_ext.report.cells import Cell
from mist_ext.report.forms import FORMS, as_text
from mist_ext.report.parsing import ResultsError, parse_cell
from mist_ext.report.reading import read_cells
from mist_ext.report.summary import write_cell_figures, write_report, write_summary
from mist_ext.report.tables import CellTables as table

__all__ = [
    "FORMS",
    "Cell",
    "ResultsError",
    "as_text",
    "parse_cell",
    "read_cells",
    "table",
    "write_cell_figures",
    "write_report",
    "write_summary",
]
