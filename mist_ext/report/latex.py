"""Tables in LaTeX, for a paper that uses booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from mist_ext.report import text
from mist_ext.report.rows import Row, groups, is_best

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",  # noqa: RUF001 - an en dash
    "·": r"\textperiodcentered{}",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_HEADINGS = {"A_avg": r"$A_\mathrm{avg}$", "A_last": r"$A_\mathrm{last}$"}
_METRICS = {"A_avg": "average_accuracy", "A_last": "last_accuracy", "forgetting": "forgetting"}


def latex(rows: Sequence[Row]) -> str:
    """A table per group: accuracies, gain and the share of changed entries; the best of each method is bold."""
    tables = [_table(text.title(group, members), members) for group, members in groups(rows).items()]
    notes = [f"% {' '.join(note.split())}\n" for note in text.notes(rows)]
    return "\n".join(["% needs \\usepackage{booktabs}\n", *tables]) + "".join(notes)


def escape(words: str) -> str:
    """Text as LaTeX shows it: no character of it is a command, and it is one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(words.split()))


def _table(title: str, rows: Sequence[Row]) -> str:
    lines = [_line(row, rows) for row in rows]
    names = ["method", "tuner", *text.accuracy_texts(rows[0], rows), "changed (%)"]
    body = []
    previous = ""
    for row, line in zip(rows, lines, strict=True):
        if previous and row.experiment.method != previous:
            body.append(r"\midrule")
        method = escape(text.method(row)) if row.experiment.method != previous else ""
        body.append(" & ".join([method, *line]) + r" \\")
        previous = row.experiment.method
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape(title)}}}",
        f"\\begin{{tabular}}{{ll{'r' * (len(names) - 2)}}}",
        r"\toprule",
        " & ".join(map(_heading, names)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def _heading(name: str) -> str:
    first, _, rest = name.partition(" ")
    return f"{_HEADINGS[first]} {rest}".rstrip() if first in _HEADINGS else escape(name)


def _line(row: Row, rows: Sequence[Row]) -> list[str]:
    """Everything but the method."""
    values = []
    for name, value in text.accuracy_texts(row, rows).items():
        number = _number(value)
        bold = name in _METRICS and is_best(row, rows, _METRICS[name])
        values.append(f"\\textbf{{{number}}}" if bold else number)
    return [escape(text.label(row)), *values, _number(text.percent(row.fractions["changed"]))]


def _number(value: str) -> str:
    """A minus sign is longer than the hyphen that text has."""
    return escape(value).replace("-", "$-$") if value != text.DASH else "--"
