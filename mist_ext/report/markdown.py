"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report import text
from mist_ext.report.rows import Row, groups


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
        lines += [f"### {text.title(group, members)}", "", _line(headings), _line(rule)]
        for row in members:
            label = text.label(row).replace("*", r"\*")
            numbers = [*text.accuracy_texts(row, members).values(), *(text.backbone_texts(row) if changed else ())]
            numbers += [*text.share_texts(row), *text.second_texts(row), *(text.memory_texts(row) if measured else ())]
            lines.append(_line([row.cell.method, label, *numbers]))
        lines.append("")
    for note in text.notes(rows):
        lines += [note.replace("*", r"\*"), ""]
    return "\n".join([*lines, text.legend(rows).replace("_", r"\_"), ""])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(value.replace('|', chr(92) + '|') for value in values)} |"
