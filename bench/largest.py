"""How large a model one device can score and tune: bf16 weights, checkpointed blocks, updates in backward.

    python bench/largest.py --model vit_giant_patch14_224 vit_7b_patch16_dinov3 --json largest.json
    python bench/largest.py --device cpu --model vit_ti --batch 4 --passes 1 4

For each model, which has random weights: the bytes of its weights, and the peak beyond them while a batch is scored,
while entries are selected, and while a step is tuned, state of the optimiser included. Where the scores of all weights
do not fit, the next of --passes is tried, in each of which a part of them is scored. All that fit must select the same
entries. Beside it stands what dense AdamW in mixed precision holds, by arithmetic: 16 bytes a weight (bf16 weight and
gradient, fp32 master and two moments), without any activation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import memory
import torch
from models import MODELS, model_name
from progress import Progress, markdown
from throughput import transformer
from torch import Tensor
from ways import KEEP, RATE, SEED, SGD

from mist_ext.optim import InBackward, SparseSGD
from mist_ext.parameters import consecutive_parts
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity
from mist_ext.system.files import write_atomically
from mist_ext.tuners.objective import MutualInformation

ADAMW_BYTES = 16  # a weight


class Tuned:
    """A model with a batch of noise and the losses that scoring and tuning go backward from."""

    def __init__(self, name: str, image_size: int | None, batch: int, device: torch.device) -> None:
        torch.manual_seed(SEED)
        with device:
            self.model = transformer(name, image_size).bfloat16().train()
            self.objective = MutualInformation(self.model.num_features)
            self.images = torch.rand(batch, 3, *self.model.patch_embed.img_size).bfloat16()
            self.labels = torch.arange(batch // 2) % 10
        self.model.set_grad_checkpointing()
        self.device = device
        self.named = list(self.model.named_parameters())
        self.bytes = sum(p.numel() * p.element_size() for _, p in self.named)

    def backward(self) -> None:
        self.objective(self.model(self.images).float(), self.labels).backward()

    def selected(self, passes: int, measured: dict[str, float]) -> Selection:
        """Score and select in so many passes; note seconds of all passes together, and peaks of the largest."""
        selection = Selection({}, {})
        for part in consecutive_parts(self.named, passes):
            self.model.requires_grad_(False)
            for _, parameter in part:
                parameter.requires_grad_()
            scores: dict[str, Tensor] = {}
            found: list[Selection] = []

            def score(part=part, scores=scores) -> None:
                with Sensitivity(part) as sensitivity:
                    self.backward()
                scores.update(sensitivity.scores())

            def select(scores=scores, found=found) -> None:
                found.append(Selection.from_scores(scores, RATE))

            self.measure("score", score, measured)
            self.measure("select", select, measured, sum(s.numel() * s.element_size() for s in scores.values()))
            selection = selection.followed_by(found[0])
        self.model.requires_grad_(True)
        return selection

    def tune(self, selection: Selection, measured: dict[str, float]) -> None:
        """Make an optimiser and take two steps; the second is timed."""
        made: list[SparseSGD] = []

        def begin() -> None:
            made.append(SparseSGD(self.named, selection, keep=KEEP, seed=SEED, **SGD))
            step()

        def step() -> None:
            with InBackward(made[0]):
                self.backward()
                made[0].step()

        peak: dict[str, float] = {}
        self.measure("tune", begin, peak)
        self.measure("again", step, peak)
        measured |= {"tune_bytes": peak["tune_bytes"], "tune_seconds": peak["again_seconds"]}

    def measure(self, phase: str, call: Callable[[], None], measured: dict[str, float], held: int = 0) -> None:
        """Run a call; add its seconds, and keep its peak, with what it is held beside, if that is the largest."""
        began = time.perf_counter()
        peak = memory.peak_extra_bytes(call, self.device)  # which waits for the device
        measured[f"{phase}_seconds"] = measured.get(f"{phase}_seconds", 0.0) + time.perf_counter() - began
        measured[f"{phase}_bytes"] = max(measured.get(f"{phase}_bytes", 0), held + (peak or 0))


def rows(name: str, given: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """A row for each number of passes; one that does not fit has a phase under ``does_not_fit``."""
    found: list[dict[str, Any]] = []
    before: Selection | None = None
    for number in given.passes:
        memory.give_back()
        tuned = Tuned(name, given.image_size, given.batch, device)
        row: dict[str, Any] = {"model": name, "parameters": sum(p.numel() for _, p in tuned.named)}
        row |= {"weight_bytes": tuned.bytes, "batch": given.batch, "passes": number}
        found.append(row)
        phase = "score"
        try:
            selection = tuned.selected(number, row)
            if before is not None and selection != before:
                raise RuntimeError(f"{name}: {number} passes select other entries than fewer do")
            before, phase = selection, "tune"
            tuned.tune(selection, row)
        except torch.OutOfMemoryError:
            row["does_not_fit"] = phase
        del tuned  # before the next is made
    return found


def table(found: list[dict[str, Any]], where: str) -> str:
    """A title, and one line for each model and number of passes."""
    headings = [
        "model",
        "M weights",
        "passes",
        "GB weights",
        "+ score",
        "+ select",
        "+ tune",
        "s score",
        "s step",
        "GB AdamW",
    ]
    lines = []
    for row in found:
        numbers = [row.get(f"{phase}_bytes") for phase in ("score", "select", "tune")]
        seconds = [row.get(f"{phase}_seconds") for phase in ("score", "tune")]
        lines.append(
            [
                row["model"] + (f" (no room to {row['does_not_fit']})" if "does_not_fit" in row else ""),
                f"{row['parameters'] / 1e6:.0f}",
                str(row["passes"]),
                f"{row['weight_bytes'] / 1e9:.2f}",
                *("" if value is None else f"{value / 1e9:.2f}" for value in numbers),
                *("" if value is None else f"{value:.2f}" for value in seconds),
                f"{ADAMW_BYTES * row['parameters'] / 1e9:.2f}",
            ]
        )
    return f"Scoring and tuning in bf16, batches of {found[0]['batch']}, {where}\n\n{markdown(headings, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = f"{', '.join(MODELS)}, or any vision transformer of timm's"
    parser.add_argument("--model", nargs="+", type=model_name, default=["vit_g"], help=models)
    parser.add_argument("--batch", type=int, default=16, help="images a batch, two views of half as many")
    parser.add_argument("--image-size", type=int, help="pixels; the model's own by default")
    parser.add_argument("--passes", nargs="+", type=int, default=[1, 4], help="how many passes to score in")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    given = parser.parse_args()
    if given.batch < 4 or given.batch % 2:
        parser.error(f"--batch is {given.batch}, expected an even number of at least 4")
    if min(given.passes) < 1:
        parser.error(f"--passes is {min(given.passes)}, expected 1 or more")
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device is {given.device}, but torch sees no GPU here")
    facts = machine.facts(device)
    result: dict[str, Any] = {"machine": facts, "adamw_bytes": ADAMW_BYTES, "rows": []}
    progress = Progress(len(given.model))
    for name in given.model:
        progress.begin(name)
        result["rows"] += rows(name, given, device)
        progress.advance(
            ", ".join(f"{row['passes']} passes: {row.get('does_not_fit', 'fits')}" for row in result["rows"])
        )
        memory.give_back()
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(given.json, json.dumps(result, indent=1) + "\n")
    print(table(result["rows"], facts["gpu"] or facts["cpu"]))


if __name__ == "__main__":
    main()
