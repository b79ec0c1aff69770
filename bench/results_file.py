"""Reads what roofline.py has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The machine and the rows of a result file.

    Raises
    ------
    SystemExit
        If it is no result of roofline.py; the message says so.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return result["machine"], result["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is no result of `python bench/roofline.py --json {path}`: {error!r}") from error


def chosen(rows: list[Row], dtype: str, threads: int | None) -> list[Row]:
    """The rows of one dtype and number of threads; selection has float32 scores whatever the dtype."""
    return [
        row
        for row in rows
        if row["threads"] == threads and (row["dtype"] == dtype or row["op"] == "select") and row["op"] != "overhead"
    ]


def most_threads(rows: list[Row]) -> int | None:
    """The largest number of threads that was measured; None on a GPU."""
    return max((row["threads"] for row in rows if row["threads"]), default=None)
