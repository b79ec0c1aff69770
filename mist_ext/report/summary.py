"""The files that join all cells: `summary.json`, `summary.md`, `summary.csv` and `accuracy.png`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mist_ext.files import write_atomically
from mist_ext.report import figures, text
from mist_ext.report.cells import PHASES, Cell
from mist_ext.report.reading import SCHEMA
from mist_ext.report.rows import Row, groups, make_rows


def write_summary(cells: Sequence[Cell], folder: str | Path) -> list[Path]:
    """Write the joint summary of all cells.

    Parameters
    ----------
    cells : sequence of Cell
        At least one.
    folder : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files written. No figure where no cell has a finished task.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    if not cells:
        raise ValueError("no cells to summarise: give at least one run")
    rows = make_rows(cells)
    joined = {"schema": SCHEMA, "cells": [_record(row) for row in rows]}
    contents: dict[str, bytes | str] = {
        "summary.json": json.dumps(joined, indent=1) + "\n",
        "summary.md": _markdown(rows),
        "summary.csv": _csv(rows),
    }
    if any(cell.tasks for cell in cells):
        contents["accuracy.png"] = figures.comparison_figure(rows)
    return _write(folder, contents)


def write_cell_figures(cell: Cell, folder: str | Path) -> list[Path]:
    """Write the figures of one cell: `accuracy.png` and `matrix.png`.

    Parameters
    ----------
    cell : Cell
        From `read_cells` or `parse_cell`.
    folder : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files written; none where no task is finished.
    """
    if not cell.tasks:
        return []
    accuracy, matrix = figures.accuracy_figure(cell), figures.matrix_figure(cell)
    return _write(folder, {"accuracy.png": accuracy, "matrix.png": matrix})


def _write(folder: str | Path, contents: dict[str, bytes | str]) -> list[Path]:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def _record(row: Row) -> dict[str, Any]:
    """A row as `summary.json` has it: percent, fractions in 0..1, seconds; null for what was not measured."""
    cell = row.cell
    return {
        "data": cell.data, "backbone": cell.backbone, "tuner": cell.tuner, "method": cell.method,
        "tasks": cell.tasks, "seeds": row.seeds, "incomplete": cell.gaps,
        "average_accuracy": _named(row.average_accuracy),
        "last_accuracy": _named(row.last_accuracy),
        "forgetting": _named(row.forgetting),
        "gain_over_none": _named(row.gain),
        "accuracy_seen": [{"mean": mean, "std": std} for mean, std in cell.seen_by_task()],
        "fractions": row.fractions,
        "backbone_change": {name: _named(value) for name, value in row.backbone.items()},
        "seconds": row.seconds,
    }  # fmt: skip


def _named(value: Any) -> dict[str, float] | None:
    return None if value is None else value._asdict()


def _markdown(rows: Sequence[Row]) -> str:
    diagnosed = text.diagnosed(rows)
    headings = ["method", "tuner", *text.ACCURACY_HEADINGS, *(text.BACKBONE_HEADINGS if diagnosed else ())]
    headings += [f"{name} %" for name in text.SHARE_HEADINGS]
    headings += [f"{name} s" for name in text.SECOND_HEADINGS]
    rule = ["---", "---", *["---:"] * (len(headings) - 2)]
    lines = []
    for group, members in groups(rows).items():
        lines += [f"### {text.title(group, members)}", "", _line(headings), _line(rule)]
        for row in members:
            label = text.label(row).replace("*", r"\*")
            numbers = [*text.accuracy_texts(row), *(text.backbone_texts(row) if diagnosed else ())]
            numbers += [*text.share_texts(row), *text.second_texts(row)]
            lines.append(_line([row.cell.method, label, *numbers]))
        lines.append("")
    for note in text.notes(rows):
        lines += [note.replace("*", r"\*"), ""]
    legend = f"{text.LEGEND} {text.BACKBONE_LEGEND}" if diagnosed else text.LEGEND
    return "\n".join([*lines, legend.replace("_", r"\_"), ""])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(value.replace('|', chr(92) + '|') for value in values)} |"


def _csv(rows: Sequence[Row]) -> str:
    """One line per cell, full precision, empty for what was not measured."""
    table = []
    for row in rows:
        record = _record(row)
        line = {name: record[name] for name in ("data", "backbone", "tuner", "method", "tasks")}
        line["seeds"] = " ".join(map(str, row.seeds))
        line["incomplete"] = "; ".join(row.cell.gaps)
        for name, parts in _CSV_SPREADS.items():
            line |= {f"{name}_{part}": (record[name] or {}).get(part) for part in parts}
        line |= {f"{name}_fraction": value for name, value in row.fractions.items()}
        for name, value in record["backbone_change"].items():
            line |= {f"{name}_{part}": (value or {}).get(part) for part in ("mean", "std")}
        line |= {f"{phase}_seconds": row.seconds[phase] for phase in (*PHASES, "total")}
        table.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue()


_CSV_SPREADS = {
    "average_accuracy": ("mean", "std"),
    "last_accuracy": ("mean", "std"),
    "forgetting": ("mean", "std"),
    "gain_over_none": ("mean", "std", "n"),
}
