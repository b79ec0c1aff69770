"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mist_ext.report.table import Tables

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# An underscore within a word, as in names of methods, is none.
_MARKUP = re.compile(r"[\\`*\[\]|~$!#&<>]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(tables: Tables) -> str:
    """Return each table with all its columns side by side, then the notes and the legend."""
    lines = []
    for table in tables.tables:
        rule = ["---:" if column.part else "---" for column in table.columns]
        lines += [f"### {escape(table.title)}", ""]
        lines += [_line([escape(column.name) for column in table.columns]), _line(rule)]
        lines += [_line([escape(cell.text) for cell in line.cells]) for line in table.lines]
        lines.append("")
    for text in (*(note.text for note in tables.notes), tables.legend):
        lines += [escape(text), ""]
    return "\n".join(lines)


def escape(words: str) -> str:
    """Return text as Markdown shows it: no character of it is markup of Markdown or HTML."""
    return _MARKUP.sub(lambda found: _HTML.get(found[0], f"\\{found[0]}"), words)


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"
