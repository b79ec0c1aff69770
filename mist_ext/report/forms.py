"""The joint table as text to paste elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report.experiments import Experiment
from mist_ext.report.latex import latex
from mist_ext.report.markdown import markdown
from mist_ext.report.records import csv_lines
from mist_ext.report.rows import make_rows

FORMS = {"markdown": markdown, "csv": csv_lines, "latex": latex}


def as_text(experiments: Sequence[Experiment], form: str) -> str:
    """The table of all experiments in one of `FORMS`."""
    return FORMS[form](make_rows(experiments))
