"""What pages show of results: their tables, and the files in bench/results that these are from."""

from __future__ import annotations

import json
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS, PROCESSES, KERNELS, DELTAS = (
    (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for page in ("benchmarks", "processes", "kernels", "deltas")
)


def read(path: str) -> Any:
    return json.loads((RESULTS / path).read_text())


def experiments(name: str) -> list[dict[str, Any]]:
    return read(f"embedded/{name}.json")["experiments"]


def spread(value: dict[str, float], digits: int = 2) -> str:
    """As the tables have it: without a std where all seeds agree."""
    std = f" ± {value['std']:.{digits}f}" if value["std"] > 1e-9 else ""
    return f"{value['mean']:.{digits}f}{std}"


def rows_of(sweep: str) -> list[dict[str, Any]]:
    return read(f"{sweep}/sweep.json")["rows"]


def rows_below(heading: str, text: str) -> list[str]:
    """The lines of the first table below a heading."""
    assert heading in text
    lines = dropwhile(lambda line: not line.startswith("|"), text.partition(heading)[2].splitlines())
    return list(takewhile(lambda line: line.startswith("|"), lines))


def table_below(heading: str, text: str = BENCHMARKS) -> list[list[str]]:
    """The cells of that table, its own heading first."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows_below(heading, text)]
    return [table[0], *table[2:]]


def exchanged(processes: int, way: str) -> dict[str, Any]:
    return next(row for row in read(f"gloo-{processes}.json")["rows"] if row["way"] == way)
