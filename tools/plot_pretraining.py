"""Draws the log of a pre-training: ``python tools/plot_pretraining.py LOG.jsonl CURVE.png``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the log of pretrain_on_scripts.py.")
    parser.add_argument("log", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args(arguments)
    lines = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    losses = figure.add_subplot()
    steps = [line["step"] for line in lines]
    losses.plot(steps, [line["loss"] for line in lines], color="#0072B2")
    losses.set_xlabel("steps of 256 images")
    losses.set_ylabel("training loss", color="#0072B2")
    accuracies = losses.twinx()
    accuracies.plot(steps, [line["held_out_accuracy"] for line in lines], color="#D55E00")
    accuracies.set_ylabel("held-out accuracy, 1,894 classes (%)", color="#D55E00")
    accuracies.set_ylim(0, 100)
    losses.set_title("vit_nano.scripts: distortions grow over the first fifth")
    figure.savefig(options.figure, dpi=150)


if __name__ == "__main__":
    main()
