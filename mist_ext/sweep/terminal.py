"""The table of a sweep for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mist_ext.sweep.table import SweepTable
from mist_ext.system.names import printable, shown


class SweepTables:
    """The table of a sweep under its title, as something that `rich.console.Console.print` takes.

    Where its columns do not fit beside each other, they stand in as many tables as are needed, each of which begins
    with the rows' places on the axes.

    Parameters
    ----------
    made : SweepTable
    """

    def __init__(self, made: SweepTable) -> None:
        self.made = made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        made = self.made
        yield Text(printable(made.title()), style="bold")
        first = made.headings.index("A_avg")
        columns = list(range(first, len(made.headings)))
        while columns:
            count = len(columns)
            while count > 1 and _width(self._table(first, columns[:count]), console, options) > options.max_width:
                count -= 1
            yield self._table(first, columns[:count])
            columns = columns[count:]

    def _table(self, first: int, columns: list[int]) -> Table:
        """The places of all rows, and some of their numbers."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
        for place in [*range(first), *columns]:
            number = place >= first
            table.add_column(
                Text(shown(self.made.headings[place])), justify="right" if number else "left", no_wrap=number
            )
        for line in self.made.lines():
            table.add_row(*(Text(shown(line[place])) for place in [*range(first), *columns]))
        return table


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """How many columns of the terminal it takes where nothing is wrapped."""
    return Measurement.get(console, options.update(max_width=10_000), table).maximum
