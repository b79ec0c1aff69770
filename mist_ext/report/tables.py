"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mist_ext.report import text
from mist_ext.report.experiments import Experiment
from mist_ext.report.rows import Row, groups, is_best, make_rows

# Below it the shares and the seconds do not fit into one table, nor do published accuracies and the gain.
_WIDE = 94
_LONG = 20  # characters of a method's name: a longer one is wrapped rather than that numbers are cut


class ExperimentTables:
    """The tables of all experiments, as something that `rich.console.Console.print` takes.

    For each group of comparable experiments (one stream, one backbone) a table of accuracies, one of shares and
    seconds, which a narrow terminal gets in two, and one of peak memory; then what is incomplete, and what the columns
    mean. The best A_last of each method is bold.

    Parameters
    ----------
    experiments : sequence of Experiment
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self.rows = make_rows(experiments)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for group, rows in groups(self.rows).items():
            yield Text(text.title(group, rows), style="bold")
            yield from _accuracies(rows, wide=options.max_width >= _WIDE)
            if text.diagnosed(rows):
                yield _table(rows, text.BACKBONE_HEADINGS, [list(map(Text, text.backbone_texts(row))) for row in rows])
            yield from _costs(rows, wide=options.max_width >= _WIDE)
        warnings = text.incomplete(self.rows) + text.warnings(self.rows)
        for note in text.notes(self.rows):
            yield Text(note, style="yellow" if note in warnings else "")
        yield Text(text.legend(self.rows), style="dim")


def _costs(rows: Sequence[Row], wide: bool) -> Iterator[Table]:
    shares = [[Text(value) for value in text.share_texts(row)] for row in rows]
    seconds = [[Text(value) for value in text.second_texts(row)] for row in rows]
    share_headings = [f"{heading}\n%" for heading in text.SHARE_HEADINGS]
    second_headings = [f"{heading}\ns" for heading in text.SECOND_HEADINGS]
    if wide:
        joined = [share + second for share, second in zip(shares, seconds, strict=True)]
        yield _table(rows, share_headings + second_headings, joined)
    else:
        yield _table(rows, share_headings, shares)
        yield _table(rows, second_headings, seconds)
    if text.memory_recorded(rows):
        headings = [f"{heading}\nMiB" for heading in text.MEMORY_HEADINGS]
        yield _table(rows, headings, [list(map(Text, text.memory_texts(row))) for row in rows])


def _accuracies(rows: Sequence[Row], wide: bool) -> Iterator[Table]:
    lines = [_accuracy_texts(row, rows) for row in rows]
    names = list(lines[0])
    # With published values beside those obtained, forgetting and gain do not fit into a narrow terminal.
    split = len(names) if wide else 4
    for part in filter(None, (names[:split], names[split:])):
        headings = [name.replace(" published", "\npublished") for name in part]
        yield _table(rows, headings, [[line[name] for name in part] for line in lines])


def _accuracy_texts(row: Row, rows: Sequence[Row]) -> dict[str, Text]:
    texts = {name: Text(value) for name, value in text.accuracy_texts(row, rows).items()}
    if is_best(row, rows, "last_accuracy"):
        texts["A_last"].stylize("bold")
    if row.gain:
        texts["gain over none"].stylize("green" if row.gain.mean > 0 else "red" if row.gain.mean < 0 else "")
    return texts


def _table(rows: Sequence[Row], headings: Sequence[str], values: Sequence[Sequence[Text]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    table.add_column("method", no_wrap=max(len(text.method(row)) for row in rows) <= _LONG)
    table.add_column("tuner")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    previous: Row | None = None
    for row, texts in zip(rows, values, strict=True):
        first = previous is None or not _same_method(previous, row)
        if first and previous is not None:
            table.add_section()
        table.add_row(Text(text.method(row) if first else ""), Text(text.label(row)), *texts)
        previous = row
    return table


def _same_method(one: Row, other: Row) -> bool:
    return one.experiment.method == other.experiment.method
