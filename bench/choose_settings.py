"""Chooses settings on a validation part of the training images; the test images are never read.

    python bench/choose_settings.py tuners rivals methods --json bench/results/settings.json

Each trial is a whole `mist run --evaluate-on validation`, on other seeds than the reported ones: a tuner's with
SimpleCIL, a method's without tuning. Trials that are finished below --out are read, not repeated, so an interrupted
search goes on where it stopped. The file keeps the trials of what is not named.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mist_ext import report
from mist_ext.runs import benchmark
from mist_ext.system.files import write_atomically

DIGITS: dict[str, Any] = {"data": "digits", "seeds": [1, 2, 3, 4]}
GLYPHS: dict[str, Any] = {"data": "glyphs", "seeds": [1]}
TUNERS: list[dict[str, Any]] = [
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
RIVALS: list[dict[str, Any]] = [
    {**DIGITS, "tuner": tuner, f"{tuner}_lr": lr} for tuner in ("bitfit", "lora") for lr in (3e-4, 1e-3, 3e-3, 1e-2)
]
FROZEN: dict[str, Any] = {**GLYPHS, "tuner": "none"}
METHODS: list[dict[str, Any]] = [
    {**FROZEN, "method": "simplecil"},
    *(
        {**FROZEN, "method": method, "method_options": options.split()}
        for method, options in (
            ("l2p", ""),
            ("l2p", "lr=0.01"),
            ("l2p", "lr=0.0003"),
            ("l2p", "classifier=prototypes"),
            ("l2p", "classifier=prototypes lr=0.0002 epochs=1"),
            ("l2p", "classifier=prototypes lr=0.005"),
            ("l2p", "classifier=prototypes epochs=2"),
            ("l2p", "classifier=prototypes length=1"),
            ("l2p", "classifier=prototypes length=1 selected=10"),
            ("l2p", "classifier=prototypes head_type=token"),
            ("dualprompt", ""),
            ("dualprompt", "lr=0.005"),
            ("dualprompt", "classifier=prototypes"),
            ("coda_prompt", "epochs=5"),
            ("coda_prompt", "epochs=5 lr=0.005"),
            ("coda_prompt", "classifier=prototypes epochs=5"),
            ("ease", "alpha=0.01 epochs=5"),
        )
    ),
]
TRIALS = {"tuners": TUNERS, "rivals": RIVALS, "methods": METHODS}


def settings(trial: dict[str, Any]) -> str:
    """A trial's own options, for the table and the folder."""
    numbers = [f"{name}={value:g}" for name, value in trial.items() if isinstance(value, (int, float))]
    return " ".join([*numbers, *trial.get("method_options", [])])


def folder(trial: dict[str, Any], out: Path) -> Path:
    """Where a trial's results lie."""
    method = [trial["method"]] if "method" in trial else []
    return out / "-".join([trial["data"], trial["tuner"], *method, *settings(trial).split()])


def finished(trial: dict[str, Any], out: Path, console: Console) -> dict[str, Any]:
    """The trial with its A_avg and A_last on the validation part, run now unless it was before."""
    own = folder(trial, out)
    if not own.exists() or report.read_experiments([own])[0].gaps:
        config = {"method": "simplecil", **trial, "evaluate_on": "validation", "save": "none"}
        benchmark.run(benchmark.Config(**config, out=str(own), overwrite=True), console)
    (experiment,) = report.read_experiments([own])
    return trial | {
        "average_accuracy": experiment.metric("average_accuracy"),
        "last_accuracy": experiment.metric("last_accuracy"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=TRIALS, help="which trials")
    parser.add_argument("--out", type=Path, default=Path("runs/settings"), help="folder of the trials' results")
    parser.add_argument("--json", type=Path, help="where the table is written")
    arguments = parser.parse_args()
    console = Console()
    rows = {kind: [finished(trial, arguments.out, console) for trial in TRIALS[kind]] for kind in arguments.kinds}
    headings = ("data", "tuner", "method", "settings", "seeds", "A_avg", "A_last")
    table = Table(*headings, title="on held-out training images, %")
    for row in [row for kind in rows.values() for row in kind]:
        figures = ["{:.2f} ± {:.2f}".format(*row[name]) for name in ("average_accuracy", "last_accuracy")]
        method = row.get("method", "simplecil")
        table.add_row(row["data"], row["tuner"], method, settings(row), str(len(row["seeds"])), *figures)
    console.print(table)
    if arguments.json:
        known = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.is_file() else {}
        write_atomically(arguments.json, json.dumps(known | rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
