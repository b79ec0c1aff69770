"""The throughput of a whole tuning step: forward, backward and update, and the memory that it takes.

    python bench/throughput.py --model vit_base_patch16_224 --batch 64
    python bench/throughput.py --device cpu --model vit_ti --batch 8 --rounds 3 --no-compile

The ways:

published          dense masks drawn op by op, gradients masked, dense SGD; not compiled, as the published code is not
full               full fine-tuning at its best: compiled, fused SGD
published masks    the published masks and dense SGD, compiled as ours
mist_ext           compiled block by block, updated in backward
sampled            the same, but backward computes only the gradients that the step keeps
forward+backward   the same without any update: what a step cannot go below

All ways of a table have the same precision: --precision fp32 bf16 makes two tables. They take turns round by round,
each on a copy of the model of its own; medians are compared. Memory is the peak of a step beyond what was there before:
activations and gradients; the JSON also has that of torch's tensors alone, without what the C library keeps. The loss
is the mutual-information objective on a random batch; making the views is not part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import machine
import memory
import torch
from models import MODELS, model_name
from others import Others, warn
from progress import Progress, markdown
from torch import Tensor, nn
from ways import RATE, SEED, WAYS, Way

from mist_ext.selection import Selection
from mist_ext.system.files import write_atomically

PRECISIONS = ["fp32", "bf16"]
PEAKS = 5  # steps whose peaks' median is taken: what the C library keeps differs from step to step


def transformer(name: str, image_size: int | None) -> nn.Module:
    """A vision transformer of timm's with random weights.

    Raises
    ------
    ValueError
        If the model is none, or the image size does not suit it.
    """
    import timm

    options = {"img_size": image_size} if image_size else {}
    try:
        model = timm.create_model(MODELS.get(name, name), num_classes=0, **options)
        size, patch = model.patch_embed.img_size, model.patch_embed.patch_size
        if any(pixels % length for pixels, length in zip(size, patch, strict=True)):
            raise ValueError(
                f"--image-size is {image_size}, expected a multiple of {name}'s patches of {patch[0]} pixels"
            )
        len(model.blocks)  # which are compiled one by one
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{name} has not the parts of a vision transformer such as vit_b: {error}") from error
    return model


def verify(model: nn.Module, ways: dict[str, Way], precision: str) -> None:
    """Raise RuntimeError unless the ways that take MIST's steps have moved the same weights to about the same place."""
    if not {"mist_ext", "sampled"} <= ways.keys():
        return
    tolerance = {"fp32": 0.01, "bf16": 0.2}[precision]  # of the way gone; bf16 rounds dense gradients, float32 sums not
    ours, sampled = (dict(ways[name].model.named_parameters()) for name in ("mist_ext", "sampled"))
    for name, began in model.named_parameters():
        moved, apart = ((a - b).double().norm() for a, b in ((ours[name], began), (ours[name], sampled[name])))
        if began.ndim > 1 and not apart <= tolerance * moved:
            raise RuntimeError(f"{name!r} moved by {moved:.3g}, but the ways mist_ext and sampled part by {apart:.3g}")


def measured(arguments: argparse.Namespace, model: nn.Module, precision: str) -> list[dict[str, Any]]:
    """Median seconds and peak bytes of each way, a row a way."""
    device = next(model.parameters()).device
    images = torch.rand(arguments.batch, 3, *model.patch_embed.img_size, device=device)
    labels = torch.arange(arguments.batch // 2, device=device) % 10
    selection = Selection.random(((n, p.detach().cpu()) for n, p in model.named_parameters()), RATE, SEED)
    ways, seconds, peak = {}, {name: [] for name in arguments.way}, {}

    def timed(step: Callable[[Tensor, Tensor], None]) -> float:
        start = time.perf_counter()
        step(images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    progress = Progress(len(arguments.way) + arguments.rounds)
    for name in arguments.way:
        progress.begin(f"{name} {precision}: warming up")
        ways[name] = WAYS[name](model, selection, precision, not arguments.no_compile)
        for _ in range(2):
            timed(ways[name].step)
        step = partial(ways[name].step, images, labels)
        peak[name] = memory.peak_extra_bytes(step, device, PEAKS), memory.peak_tensor_bytes(step, device)
        progress.advance("ready")
    verify(model, ways, precision)
    with Others() as others:
        for round_number in range(arguments.rounds):
            progress.begin(f"{precision}, round {round_number + 1}")
            for name, way in ways.items():
                seconds[name].append(timed(way.step))
            progress.advance(", ".join(f"{name} {1e3 * times[-1]:.1f} ms" for name, times in seconds.items()))
    warn(others.cores)
    bare = statistics.median(seconds["forward+backward"]) if "forward+backward" in seconds else None
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append(
            {
                "way": name,
                "precision": precision,
                "compiled": WAYS[name].compiled and not arguments.no_compile,
                "ms": 1e3 * median,
                "images_per_s": arguments.batch / median,
                "x_forward_backward": median / bare if bare else None,
                "peak_step_bytes": peak[name][0],
                "peak_tensor_bytes": peak[name][1],
                "others_cores": others.cores,
            }
        )
    return rows


def table(result: dict[str, Any], precision: str) -> str:
    """A title, and one line a way."""
    where = result["machine"]["gpu"] or result["machine"]["cpu"]
    title = f"{result['model']}, batches of {result['batch']}, {precision}, {where}"
    headings = ["way", "compiled", "ms", "images/s", "x forward+backward", "MB a step"]
    rows = []
    for row in result["rows"]:
        if row["precision"] != precision:
            continue
        ratio, peak = row["x_forward_backward"], row["peak_step_bytes"]
        rows.append(
            [
                row["way"],
                "yes" if row["compiled"] else "no",
                f"{row['ms']:.1f}",
                f"{row['images_per_s']:.1f}",
                f"{ratio:.3f}" if ratio else "",
                f"{peak / 2**20:.0f}" if peak is not None else "",
            ]
        )
    return f"{title}\n\n{markdown(headings, rows, ['compiled'])}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = f"{', '.join(MODELS)}, or any vision transformer of timm's"
    parser.add_argument("--model", type=model_name, default="vit_base_patch16_224", help=models)
    parser.add_argument(
        "--batch", type=int, default=64, help="images a step, an even number: two views of half as many"
    )
    parser.add_argument("--image-size", type=int, help="pixels; the model's own by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, help="a table for each; bf16, which is mixed, on a GPU, else fp32"
    )
    parser.add_argument("--rounds", type=int, default=10, help="steps of each way")
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile anywhere")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS), help="which ways; all by default")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    given = parser.parse_args()
    if given.batch < 2 or given.batch % 2:
        parser.error(f"--batch is {given.batch}, expected an even number of at least 2")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}, expected 1 or more")
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device is {given.device}, but torch sees no GPU here")
    torch.manual_seed(SEED)
    try:
        model = transformer(given.model, given.image_size).to(device)
    except ValueError as error:
        parser.error(str(error))
    result: dict[str, Any] = {
        "machine": machine.facts(device) | {"threads": torch.get_num_threads()},
        "model": given.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": given.batch,
        "image_size": list(model.patch_embed.img_size),
        "rows": [],
    }
    for precision in given.precision or ["bf16" if device.type == "cuda" else "fp32"]:
        result["rows"] += measured(given, model, precision)
        print(table(result, precision))
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(given.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
