"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mist_ext.report import text
from mist_ext.report.rows import Row, groups

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# An underscore within a word, as in names of methods, is none.
_MARKUP = re.compile(r"[\\`*\[\]|~$!#&<>]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(rows: Sequence[Row]) -> str:
    """A table per group, all columns in one."""
    lines = []
    for group, members in groups(rows).items():
        changed = text.diagnosed(members)
        headings = ["method", "tuner", *text.accuracy_texts(members[0], members)]
        headings += text.BACKBONE_HEADINGS if changed else ()
        headings += [f"{name} %" for name in text.SHARE_HEADINGS] + [f"{name} s" for name in text.SECOND_HEADINGS]
        measured = text.memory_recorded(members)
        headings += [f"{name} MiB" for name in text.MEMORY_HEADINGS] if measured else ()
        rule = ["---", "---", *["---:"] * (len(headings) - 2)]
        lines += [f"### {escape(text.title(group, members))}", "", line(headings), line(rule)]
        for row in members:
            numbers = [*text.accuracy_texts(row, members).values(), *(text.backbone_texts(row) if changed else ())]
            numbers += [*text.share_texts(row), *text.second_texts(row), *(text.memory_texts(row) if measured else ())]
            lines.append(line([escape(text.method(row)), escape(text.label(row)), *numbers]))
        lines.append("")
    for note in text.notes(rows):
        lines += [escape(note), ""]
    return "\n".join([*lines, text.legend(rows).replace("_", r"\_"), ""])


def escape(words: str) -> str:
    """Text as Markdown shows it: no character of it is markup of Markdown or HTML."""
    return _MARKUP.sub(lambda found: _HTML.get(found[0], f"\\{found[0]}"), words)


def line(values: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(values)} |"
