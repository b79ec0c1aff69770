"""Tables and figures from the results of any number of runs.

``read_experiments`` reads folders, ``table`` is for the terminal, ``as_text`` for pasting; ``write_report`` writes all
files, ``write_figures`` and ``write_summary`` a part of them. Runs that were interrupted are reported as far as they
got, and named.
"""

from __future__ import annotations

from mist_ext.report.experiments import Experiment
from mist_ext.report.forms import FORMS, as_text
from mist_ext.report.parsing import ResultsError, parse_experiment
from mist_ext.report.reading import read_experiments
from mist_ext.report.summary import write_figures, write_report, write_summary
from mist_ext.report.tables import ExperimentTables as table

__all__ = [
    "FORMS",
    "Experiment",
    "ResultsError",
    "as_text",
    "parse_experiment",
    "read_experiments",
    "table",
    "write_figures",
    "write_report",
    "write_summary",
]
