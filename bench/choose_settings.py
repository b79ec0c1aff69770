"""Chooses settings on a validation part of the training images; the test images are never read.

    python bench/choose_settings.py --json bench/results/settings.json

Each trial is a whole `mist run --evaluate-on validation` with SimpleCIL, on other seeds than the reported ones. Trials
that are finished below --out are read, not repeated, so an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mist_ext import experiment, report
from mist_ext.files import write_atomically
from mist_ext.metrics import average_accuracy, last_accuracy, mean_std

DIGITS: dict[str, Any] = {"data": "digits", "seeds": [1, 2, 3, 4]}
GLYPHS: dict[str, Any] = {"data": "glyphs", "seeds": [1]}
TRIALS: list[dict[str, Any]] = [
    {**DIGITS, "tuner": "none"},
    {**DIGITS, "tuner": "mist", "epochs": 20, "lr": 3e-3},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 1e-2},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 1e-2, "projector_lr": 0.1},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 1e-2, "strike_factor": 0.5},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 1e-2, "strike_factor": 0.1},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 3e-3},
    {**DIGITS, "tuner": "mist", "epochs": 10, "lr": 2e-3},
    {**DIGITS, "tuner": "mist", "epochs": 6, "lr": 5e-3},
    {**DIGITS, "tuner": "mist", "epochs": 6, "lr": 3e-3},
    {**DIGITS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "projector_lr": 0.1},
    {**DIGITS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "projector_lr": 0.1, "strike_factor": 0.3},
    {**DIGITS, "seeds": [1, 2], "tuner": "full", "epochs": 6, "full_lr": 5e-4},
    {**DIGITS, "seeds": [1, 2], "tuner": "full", "epochs": 6, "full_lr": 2e-4},
    {**GLYPHS, "tuner": "none"},
    {**GLYPHS, "tuner": "mist", "epochs": 10, "lr": 3e-3},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 2e-3},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 1e-3},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 5e-4},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 1e-3, "strike_factor": 0.3},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 2e-3, "strike_factor": 0.1},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "strike_factor": 0.2},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "projector_lr": 0.1},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "projector_lr": 0.5, "strike_factor": 0.3},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 5e-3, "projector_lr": 1.0, "strike_factor": 0.1},
    {**GLYPHS, "tuner": "mist", "epochs": 6, "lr": 3e-3, "projector_lr": 0.5, "batch_size": 16},
]


def settings(trial: dict[str, Any]) -> str:
    """A trial's own options, for the table and the folder."""
    return " ".join(f"{name}={value:g}" for name, value in trial.items() if isinstance(value, (int, float)))


def folder(trial: dict[str, Any], out: Path) -> Path:
    """Where a trial's results lie."""
    return out / "-".join([trial["data"], trial["tuner"], *settings(trial).split()])


def finished(trial: dict[str, Any], out: Path, console: Console) -> dict[str, Any]:
    """The trial with its A_avg and A_last on the validation part, run now unless it was before."""
    own = folder(trial, out)
    if not own.exists() or report.read_cells([own])[0].gaps:
        config = {**trial, "tuner": [trial["tuner"]], "method": ["simplecil"], "evaluate_on": "validation"}
        experiment.run(experiment.Config(**config, out=str(own), overwrite=True), console)
    (cell,) = report.read_cells([own])
    return trial | {
        "average_accuracy": mean_std([average_accuracy(run.seen) for run in cell.runs]),
        "last_accuracy": mean_std([last_accuracy(run.seen) for run in cell.runs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/settings"), help="folder of the trials' results")
    parser.add_argument("--json", type=Path, help="where the table is written")
    arguments = parser.parse_args()
    console = Console()
    rows = [finished(trial, arguments.out, console) for trial in TRIALS]
    table = Table("data", "tuner", "settings", "seeds", "A_avg", "A_last", title="on held-out training images, %")
    for row in rows:
        figures = ["{:.2f} ± {:.2f}".format(*row[name]) for name in ("average_accuracy", "last_accuracy")]
        table.add_row(row["data"], row["tuner"], settings(row), str(len(row["seeds"])), *figures)
    console.print(table)
    if arguments.json:
        write_atomically(arguments.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
