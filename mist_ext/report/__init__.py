"""Tables and figures from the results of any number of runs.

``read_experiments`` reads folders, ``table`` is for the terminal, ``as_text`` for pasting; ``write_report`` writes all
files, ``write_figures`` and ``write_summary`` a part of them. Runs that were interrupted are reported as far as they
got, and named.
"""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report.comparisons import compare
from mist_ext.report.experiments import Experiment
from mist_ext.report.joint_table import joint_table
from mist_ext.report.parsing import ResultsError, parse_experiment
from mist_ext.report.reading import of_sweep, read_experiments
from mist_ext.report.renderers.latex import latex
from mist_ext.report.renderers.markdown import markdown
from mist_ext.report.renderers.spreadsheet import csv_text
from mist_ext.report.renderers.terminal import Terminal
from mist_ext.report.table import Tables
from mist_ext.report.writing import write_figures, write_report, write_summary

__all__ = [
    "FORMS",
    "Experiment",
    "ResultsError",
    "as_text",
    "of_sweep",
    "parse_experiment",
    "read_experiments",
    "table",
    "tables",
    "write_figures",
    "write_report",
    "write_summary",
]

FORMS = {"markdown": markdown, "csv": csv_text, "latex": latex}


def tables(experiments: Sequence[Experiment]) -> Tables:
    """Return the tables of all experiments, which each of `FORMS` takes."""
    return joint_table(compare(experiments))


def table(experiments: Sequence[Experiment]) -> Terminal:
    """Return the tables of all experiments, as something that `rich.console.Console.print` takes."""
    return Terminal(tables(experiments))


def as_text(experiments: Sequence[Experiment], form: str) -> str:
    """Return the tables of all experiments in one of `FORMS`."""
    return FORMS[form](tables(experiments))
