"""Tables as plain data: reports and sweeps build them, and each renderer takes them and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

DASH = "–"  # noqa: RUF001 - an en dash: what was not measured

Mark = Literal["", "best", "up", "down"]


class Column(NamedTuple):
    """A column.

    Attributes
    ----------
    heading : str
        A line break in it is where a form with narrow columns breaks it.
    part : str
        Which part of the table a column of numbers belongs to; empty for a column of names, which every part begins
        with.
    in_paper : bool
        Whether a table for a paper has it.
    """

    heading: str
    part: str = ""
    in_paper: bool = True

    @property
    def name(self) -> str:
        """The heading in one line."""
        return self.heading.replace("\n", " ")


class Cell(NamedTuple):
    """What stands in a line, and why it stands out: the best of its method, or a change to the better or worse."""

    text: str
    mark: Mark = ""


class Note(NamedTuple):
    """A sentence below the tables."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes
    ----------
    cells : list of Cell
        One for each column.
    anchor : str
        Where a page has more on it.
    """

    cells: list[Cell]
    anchor: str = ""


@dataclass(frozen=True)
class Table:
    """Columns of names, then columns of numbers in parts."""

    title: str
    columns: list[Column]
    lines: list[Line]

    @property
    def names(self) -> list[int]:
        """The positions of the columns of names."""
        return [position for position, column in enumerate(self.columns) if not column.part]

    @property
    def parts(self) -> dict[str, list[int]]:
        """The positions of the columns of numbers, by part."""
        split: dict[str, list[int]] = {}
        for position, column in enumerate(self.columns):
            if column.part:
                split.setdefault(column.part, []).append(position)
        return split


@dataclass(frozen=True)
class Tables:
    """Tables and what is said below them.

    Attributes
    ----------
    tables : list of Table
        One for each group of comparable experiments.
    notes : list of Note
    legend : str
        What the columns mean.
    records : list of dict
        All experiments in full precision, by column of a spreadsheet; None for what was not measured.
    """

    tables: list[Table]
    notes: list[Note]
    legend: str
    records: list[dict[str, Any]] = field(default_factory=list)
