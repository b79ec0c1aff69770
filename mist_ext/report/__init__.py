"""Tables and figures from the results of any number of runs.

``read_cells`` reads folders, ``table`` is for the terminal, ``write_cell_figures`` and ``write_summary``
write files. Runs that were interrupted are reported as far as they got, and named.
"""

from __future__ import annotations

from mist_ext.report.cells import Cell
from mist_ext.report.reading import ResultsError, parse_cell, read_cells
from mist_ext.report.summary import write_cell_figures, write_summary
from mist_ext.report.tables import CellTables as table

__all__ = ["Cell", "ResultsError", "parse_cell", "read_cells", "table", "write_cell_figures", "write_summary"]
