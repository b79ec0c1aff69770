"""Every number of a row in full precision: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mist_ext.report.rows import Row
from mist_ext.results.record import SCHEMA, Expected
from mist_ext.system.names import printable

_FORMULA = ("=", "+", "-", "@")  # what begins one; a tab or another control code does not once it is `printable`
_SPREADS = {
    "average_accuracy": ("mean", "std"),
    "last_accuracy": ("mean", "std"),
    "forgetting": ("mean", "std"),
    "gain_over_none": ("mean", "std", "n"),
}


def json_text(rows: Sequence[Row]) -> str:
    """All rows, null for what was not measured."""
    return json.dumps({"schema": SCHEMA, "experiments": [record(row) for row in rows]}, indent=1) + "\n"


def csv_lines(rows: Sequence[Row]) -> str:
    """One line per experiment, full precision, empty for what was not measured."""
    table = []
    for row in rows:
        full = record(row)
        line = {name: full[name] for name in ("data", "backbone", "tuner", "method", "tasks")}
        line["seeds"] = " ".join(map(str, row.seeds))
        line["incomplete"] = "; ".join(row.experiment.gaps)
        for name, parts in _SPREADS.items():
            line |= {f"{name}_{part}": (full[name] or {}).get(part) for part in parts}
        line |= {f"{name}_fraction": value for name, value in row.fractions.items()}
        for name, value in full["backbone_change"].items():
            line |= {f"{name}_{part}": (value or {}).get(part) for part in ("mean", "std")}
        line |= {f"{phase}_seconds": spent for phase, spent in row.seconds.items()}
        line |= {f"{phase}_peak_memory_bytes": peak for phase, peak in row.memory.items()}
        expected = full["expected"] or {}
        line |= {f"expected_{part}": expected.get(part) for part in Expected.__struct_fields__}
        table.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(text_cells, table))
    return buffer.getvalue()


def text_cells(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of CSV in which no name can be a formula of a spreadsheet, nor a control code; numbers stay numbers."""
    return {name: _no_formula(printable(value)) if isinstance(value, str) else value for name, value in line.items()}


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def record(row: Row) -> dict[str, Any]:
    """A row as `summary.json` has it: percent, fractions in 0..1, seconds, bytes; null for what was not measured."""
    experiment = row.experiment
    return {
        "data": experiment.data, "backbone": experiment.backbone, "tuner": experiment.tuner,
        "method": experiment.method,
        "tasks": experiment.tasks, "seeds": row.seeds, "incomplete": experiment.gaps,
        "average_accuracy": _named(row.average_accuracy),
        "last_accuracy": _named(row.last_accuracy),
        "forgetting": _named(row.forgetting),
        "gain_over_none": _named(row.gain),
        "expected": msgspec.to_builtins(experiment.expected),
        "accuracy_seen": [{"mean": mean, "std": std} for mean, std in experiment.seen_by_task()],
        "fractions": row.fractions,
        "backbone_change": {name: _named(value) for name, value in row.backbone.items()},
        "seconds": row.seconds,
        "peak_memory_bytes": row.memory,
    }  # fmt: skip


def _named(value: Any) -> dict[str, Any] | None:
    return None if value is None else value._asdict()
