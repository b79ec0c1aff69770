"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from mist_ext.report.table import Table, Tables
from mist_ext.system.names import printable

_LONG = 20  # characters of a name: a longer one is wrapped rather than that numbers are cut
_STYLES = {"": "", "best": "bold", "up": "green", "down": "red"}


class Terminal:
    """Tables as something that `rich.console.Console.print` takes.

    Each part of a table is printed by itself, and where its columns do not fit beside each other, in as many pieces as
    are needed. Every piece begins with the names of the lines.

    Parameters
    ----------
    tables : Tables
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=10_000)
        for table in self.tables.tables:

            def fits(columns: Sequence[int], table: Table = table) -> bool:
                widest = Measurement.get(console, unbounded, _rich(table, columns, measured=True)).maximum
                return widest <= options.max_width

            yield Text(printable(table.title), style="bold")
            for part in table.parts.values():
                for columns in _pieces(part, fits):
                    yield _rich(table, columns, narrow=not fits(columns))
        for note in self.tables.notes:
            yield Text(printable(note.text), style="yellow" if note.warning else "")
        yield Text(self.tables.legend, style="dim")


def _pieces(columns: Sequence[int], fits: Callable[[Sequence[int]], bool]) -> Iterator[Sequence[int]]:
    """Split columns into pieces that fit, each with as many as there is room for, and at least one."""
    while columns:
        count = next((count for count in range(len(columns), 1, -1) if fits(columns[:count])), 1)
        yield columns[:count]
        columns = columns[count:]


def _rich(table: Table, columns: Sequence[int], measured: bool = False, narrow: bool = False) -> RichTable:
    """Return a table of all lines' names and some of their columns; a first name is not repeated line by line.

    Where it is too ``narrow`` even so, names and headings are broken anywhere, and numbers are whole.
    """
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    for position in table.names:
        longest = max(len(line.cells[position].text) for line in table.lines)
        heading = Text(table.columns[position].heading)
        no_wrap = longest <= _LONG and not narrow
        made.add_column(heading, overflow="fold", no_wrap=no_wrap, max_width=_LONG if measured else None)
    for position in columns:
        heading = Text(table.columns[position].heading.replace(" ", "\n" if narrow else " "))
        made.add_column(heading, justify="right", overflow="fold", no_wrap=True)
    previous = ""
    for line in table.lines:
        first, *others = (
            Text(printable(line.cells[position].text), style=_STYLES[line.cells[position].mark])
            for position in (*table.names, *columns)
        )
        if previous and first.plain != previous:
            made.add_section()
        made.add_row(first if first.plain != previous else "", *others)
        previous = first.plain
    return made
