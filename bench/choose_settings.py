"""Chooses the learning rates on a validation part of the training images; the test images are never read.

    python bench/choose_settings.py --json bench/results/settings.json

Each value runs the whole benchmark with SimpleCIL on a quarter of the training images, held out, with other seeds than the
reported ones. The default of an option is the value with the highest A_last averaged over the data sets.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mist_ext import experiment, report
from mist_ext.files import write_atomically

GRID = {
    ("mist", "lr"): [3e-3, 1e-2, 3e-2, 1e-1],
    ("full", "full_lr"): [1e-4, 1e-3, 1e-2],
}


def validate(data: str, tuner: str, seeds: list[int], **options: float) -> float:
    """A_last on the validation part, percent, averaged over seeds."""
    with tempfile.TemporaryDirectory() as folder:
        config = experiment.Config(
            data=data,
            tuner=[tuner],
            method=["simplecil"],
            seeds=seeds,
            evaluate_on="validation",
            out=folder,
            **options,  # type: ignore[arg-type]
        )
        experiment.run(config, Console(file=io.StringIO()))
        (cell,) = report.read_cells([folder])
        return sum(run.seen[-1] for run in cell.runs) / len(cell.runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "glyphs"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--json", type=Path, help="where the table is written")
    arguments = parser.parse_args()
    console = Console()
    rows = [
        {"tuner": "none"} | {data: validate(data, "none", arguments.seeds) for data in arguments.data},
    ]
    for (tuner, name), values in GRID.items():
        for value in values:
            row: dict = {"tuner": tuner, "option": name, "value": value}
            for data in arguments.data:
                row[data] = validate(data, tuner, arguments.seeds, **{name: value})
                console.print(f"{tuner} {name}={value:g} {data}: {row[data]:.2f} %", highlight=False)
            rows.append(row)
    table = Table("tuner", "option", "value", *arguments.data, "mean", title="A_last on held-out training images, %")
    for row in rows:
        row["mean"] = sum(row[data] for data in arguments.data) / len(arguments.data)
        figures = [f"{row[key]:.2f}" for key in (*arguments.data, "mean")]
        table.add_row(row["tuner"], row.get("option", ""), f"{row['value']:g}" if "value" in row else "", *figures)
    console.print(table)
    if arguments.json:
        write_atomically(arguments.json, json.dumps({"seeds": arguments.seeds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
