"""The throughput of a whole tuning step: forward, backward and update, and the memory that it takes.

    python bench/throughput.py --model vit_base_patch16_224 --batch 64
    python bench/throughput.py --device cpu --model vit_tiny_patch16_224 --batch 8 --rounds 3 --no-compile

The ways:

published          float32, dense masks drawn op by op, gradients masked, dense SGD, as the published code does it
full               full fine-tuning at its best: mixed precision, compiled, fused SGD
published masks    the published masks and dense SGD, at our precision and compilation
mist_ext           mixed precision, compiled block by block, updated in backward
forward+backward   the same without any update: what a step cannot go below

All take turns round by round, each on a copy of the model of its own; medians are compared. Memory is the peak of one
step beyond the weights: activations, gradients and optimiser state. The loss is the mutual-information objective on a
random batch; making the views is not part of it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import machine
import memory
import torch
from progress import Progress, markdown
from torch import Tensor, nn

from mist_ext.files import write_atomically
from mist_ext.objective import MutualInformation
from mist_ext.optim import InBackward, SparseSGD
from mist_ext.selection import Selection

RATE, KEEP, SEED = 0.05, 0.1, 1993
SGD: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


class Way:
    """One way to take a step, with a model, projector and optimiser of its own."""

    precision = "bf16"
    compiled = True

    def __init__(self, model: nn.Module, selection: Selection, compile_blocks: bool) -> None:
        self.model = copy.deepcopy(model).train()
        self.device = next(model.parameters()).device
        torch.manual_seed(SEED)
        self.objective = MutualInformation(model.num_features).to(self.device)
        self.selection = selection
        if self.compiled and compile_blocks:
            for block in self.model.blocks:
                block.compile()
        self.prepare()

    def prepare(self) -> None:
        """Make what the step needs."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with mixed:
            return self.objective(self.model(images), labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.loss(images, labels).backward()
        self.update()

    def update(self) -> None:
        """Use the gradients and free them."""
        for p in self.model.parameters():
            p.grad = None


class ForwardBackward(Way):
    """No update."""


class Full(Way):
    def prepare(self) -> None:
        self.sgd = torch.optim.SGD(self.model.parameters(), **SGD, fused=True)

    def update(self) -> None:
        self.sgd.step()
        self.sgd.zero_grad()


class PublishedMasks(Way):
    """Dense masks, op by op."""

    def prepare(self) -> None:
        self.sgd = torch.optim.SGD(self.model.parameters(), **SGD)
        self.masks, self.counts = [], []
        for name, p in self.model.named_parameters():
            mask = torch.zeros_like(p, dtype=torch.bool)
            index = self.selection[name]
            if index is None:
                mask.fill_(True)
            else:
                mask.view(-1)[index.long().to(p.device)] = True
            self.masks.append(mask)
            self.counts.append(torch.zeros_like(p))

    def update(self) -> None:
        for p, mask, count in zip(self.model.parameters(), self.masks, self.counts, strict=True):
            keep = torch.zeros_like(p)
            keep[mask] = torch.bernoulli(torch.full((int(mask.sum()),), KEEP, device=p.device))
            p.grad = p.grad * keep * 0.9**count
        self.sgd.step()
        self.sgd.zero_grad()


class Published(PublishedMasks):
    precision = "fp32"
    compiled = False


class Ours(Way):
    def prepare(self) -> None:
        named = list(self.model.named_parameters())
        self.sgd = SparseSGD(named, self.selection, keep=KEEP, seed=SEED, **SGD)
        self.within = InBackward(self.sgd).__enter__()

    def update(self) -> None:
        self.sgd.step()


WAYS: dict[str, type[Way]] = {
    "published": Published,
    "full": Full,
    "published masks": PublishedMasks,
    "mist_ext": Ours,
    "forward+backward": ForwardBackward,
}


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Median seconds and peak bytes of each way."""
    import timm

    device = torch.device(arguments.device)
    torch.manual_seed(SEED)
    options = {"img_size": arguments.image_size} if arguments.image_size else {}
    model = timm.create_model(arguments.model, num_classes=0, **options).to(device)
    size = model.patch_embed.img_size
    images = torch.rand(arguments.batch, 3, *size, device=device)
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
        progress.begin(f"{name}: warming up")
        ways[name] = WAYS[name](model, selection, not arguments.no_compile)
        for _ in range(2):
            timed(ways[name].step)
        peak[name] = memory.peak_extra_bytes(lambda way=ways[name]: way.step(images, labels), device)
        progress.advance("ready")
    for round_number in range(arguments.rounds):
        progress.begin(f"round {round_number + 1}")
        for name, way in ways.items():
            seconds[name].append(timed(way.step))
        progress.advance(", ".join(f"{name} {1e3 * times[-1]:.1f} ms" for name, times in seconds.items()))
    bare = statistics.median(seconds["forward+backward"]) if "forward+backward" in seconds else None
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append(
            {
                "way": name,
                "precision": WAYS[name].precision,
                "compiled": WAYS[name].compiled and not arguments.no_compile,
                "ms": 1e3 * median,
                "images_per_s": arguments.batch / median,
                "x_forward_backward": median / bare if bare else None,
                "peak_step_bytes": peak[name],
            }
        )
    return {
        "machine": machine.facts(device) | {"threads": torch.get_num_threads()},
        "model": arguments.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": arguments.batch,
        "image_size": list(size),
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """A title, and one line a way."""
    title = f"{result['model']}, batches of {result['batch']}, {result['machine']['gpu'] or result['machine']['cpu']}"
    headings = ["way", "precision", "compiled", "ms", "images/s", "x forward+backward", "MB a step"]
    rows = []
    for row in result["rows"]:
        ratio, peak = row["x_forward_backward"], row["peak_step_bytes"]
        rows.append(
            [
                row["way"],
                row["precision"],
                "yes" if row["compiled"] else "no",
                f"{row['ms']:.1f}",
                f"{row['images_per_s']:.1f}",
                f"{ratio:.3f}" if ratio else "",
                f"{peak / 2**20:.0f}" if peak is not None else "",
            ]
        )
    return f"{title}\n\n{markdown(headings, rows, ['precision', 'compiled'])}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224", help="a vision transformer of timm's")
    parser.add_argument(
        "--batch", type=int, default=64, help="images a step, an even number: two views of half as many"
    )
    parser.add_argument("--image-size", type=int, help="pixels; the model's own by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=10, help="steps of each way")
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile anywhere")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS), help="which ways; all by default")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    if arguments.batch < 2 or arguments.batch % 2:
        parser.error(f"--batch is {arguments.batch}, expected an even number of at least 2")
    result = measured(arguments)
    print(table(result))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
