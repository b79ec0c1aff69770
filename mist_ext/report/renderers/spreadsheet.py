"""Tables as CSV, in full precision."""

from __future__ import annotations

import csv
import io

from mist_ext.report.table import Tables
from mist_ext.system.names import printable

_FORMULA = ("=", "+", "-", "@")  # what begins one; a tab or another control code does not once it is `printable`


def csv_text(tables: Tables) -> str:
    """Return a line per experiment, empty for what was not measured; numbers stay numbers, and names are text."""
    columns = list(dict.fromkeys(name for record in tables.records for name in record))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for record in tables.records:
        writer.writerow({name: _text(value) if isinstance(value, str) else value for name, value in record.items()})
    return buffer.getvalue()


def _text(name: str) -> str:
    """Return a name without control codes that a spreadsheet does not take for a formula."""
    text = printable(name)
    return f"'{text}" if text.startswith(_FORMULA) else text
