"""Tables in LaTeX, for a paper that uses booktabs."""

from __future__ import annotations

from mist_ext.report.table import DASH, Cell, Column, Table, Tables
from mist_ext.results.metrics import METRICS

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",  # noqa: RUF001 - an en dash
    "·": r"\textperiodcentered{}",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_HEADINGS = {name: f"$A_\\mathrm{{{name[2:]}}}$" for name in METRICS.values() if name.startswith("A_")}


def latex(tables: Tables) -> str:
    """Return a table per group with the columns that a paper has; the best of each method is bold."""
    notes = [f"% {' '.join(note.text.split())}\n" for note in tables.notes]
    return "\n".join(["% needs \\usepackage{booktabs}\n", *map(_table, tables.tables)]) + "".join(notes)


def escape(words: str) -> str:
    """Return text as LaTeX shows it: no character of it is a command, and it is one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(words.split()))


def _table(table: Table) -> str:
    chosen = [position for position, column in enumerate(table.columns) if column.in_paper]
    columns = [table.columns[position] for position in chosen]
    body = []
    previous = ""
    for line in table.lines:
        first, *others = (_cell(line.cells[position], table.columns[position]) for position in chosen)
        if previous and first != previous:
            body.append(r"\midrule")
        body.append(" & ".join([first if first != previous else "", *others]) + r" \\")
        previous = first
    return "\n".join([
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape(table.title)}}}",
        f"\\begin{{tabular}}{{{''.join('r' if column.part else 'l' for column in columns)}}}",
        r"\toprule",
        " & ".join(_heading(column.name) for column in columns) + r" \\",
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


def _cell(cell: Cell, column: Column) -> str:
    if not column.part:
        return escape(cell.text)
    # A minus sign is longer than the hyphen that text has.
    number = "--" if cell.text == DASH else escape(cell.text).replace("-", "$-$")
    return f"\\textbf{{{number}}}" if cell.mark == "best" else number
