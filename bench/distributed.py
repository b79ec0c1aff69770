"""What a tuning step of several processes exchanges, and what that costs.

    torchrun --nproc-per-node 2 bench/distributed.py --image-size 64 --batch 8 --json bench/results/gloo-2.json

Every process has a replica of the model and its rows of the batch. The ways:

alone             forward, backward and update without any exchange: what a step cannot go below
dense fp32        PyTorch's DDP, whole gradients
dense bf16        the same with DDP's bf16 compression hook
sparse fp32       the kept entries' gradients, packed, reduced when backward has ended
sparse bf16       the same with bf16 on the wire
sparse in backward, bf16 or fp32    the same packed and reduced block by block, while backward goes on

First every way takes one step from the same weights: the ranks must have the same bits afterwards, and the sparse way
in float32 the weights of the dense one. Then all take turns; medians of the slowest rank. Bytes are those that a rank
hands to the all-reduce in a step. The share of the exchange that is hidden behind backward is ``1 - (step - alone) /
exchange``, with the time of the exchange by itself; where steps differ by more than that among themselves it is not
told.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import machine
import torch
import torch.distributed as dist
from progress import Progress, markdown
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from mist_ext.distributed import launch, ranks
from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.optim import InBackward, SparseExchange, SparseSGD
from mist_ext.selection import Selection
from mist_ext.system.files import write_atomically
from mist_ext.tuners.objective import MutualInformation

RATE, KEEP, SEED = 0.05, 0.1, 1993
SGD: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
TOLERANCE = 1e-5  # of the largest weight change, between sparse and dense in float32
ROUNDING = 2.0**-23  # of the largest weight: what a step is rounded to


class Way:
    """One way to take a step, with a model and an optimiser of its own."""

    wire: torch.dtype | None = None
    in_backward = False

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        self.model = copy.deepcopy(model).train()
        self.network = self.model
        torch.manual_seed(SEED)
        self.objective = MutualInformation(int(model.num_features)).to(next(model.parameters()).device)  # type: ignore[arg-type]
        self.objective.requires_grad_(False)
        self.sgd = SparseSGD(self.model.named_parameters(), selection, keep=KEEP, seed=SEED, **SGD)
        self.stack = ExitStack()
        self.prepare()

    def prepare(self) -> None:
        """Make what the step needs."""

    def step(self, images: Tensor, labels: Tensor, rows: BatchRows) -> None:
        self.scaled(self.objective(self.network(images), labels, rows)).backward()
        self.sgd.step()
        self.sgd.zero_grad()

    def scaled(self, loss: Tensor) -> Tensor:
        return loss

    def exchanged(self) -> int:
        """Bytes that this rank hands to the collective in a step."""
        return 0

    def exchange(self) -> Callable[[], None] | None:
        """The exchange by itself, as often as a step does it; None where there is none."""
        return None


class Dense(Way):
    """DDP: its mean over the ranks is to be a sum."""

    def prepare(self) -> None:
        self.network = DistributedDataParallel(self.model)
        if self.wire == torch.bfloat16:
            self.network.register_comm_hook(None, bf16_compress_hook)

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * ranks.size()

    def exchanged(self) -> int:
        assert self.wire is not None
        return sum(p.numel() for p in self.model.parameters()) * self.wire.itemsize

    def exchange(self) -> Callable[[], None]:
        bucket = 25 * 2**20 // 4  # entries of DDP's buckets
        sizes = [p.numel() for p in self.model.parameters()]
        device = next(self.model.parameters()).device
        parts = torch.zeros(sum(sizes), dtype=self.wire, device=device).split(bucket)
        return lambda: _reduce(parts)


class DenseNarrow(Dense):
    wire = torch.bfloat16


class DenseWide(Dense):
    wire = torch.float32


class Sparse(Way):
    """Packed kept gradients."""

    wire = torch.float32

    def prepare(self) -> None:
        self.within = SparseExchange(self.sgd, wire=self.wire, reduce="sum")
        self.stack.enter_context(self.within)
        if self.in_backward:
            self.stack.enter_context(InBackward(self.sgd))

    def exchanged(self) -> int:
        return self.within.bytes

    def exchange(self) -> Callable[[], None]:
        assert self.wire is not None
        device = next(self.model.parameters()).device
        parts = (torch.zeros(self.within.bytes // self.wire.itemsize, dtype=self.wire, device=device),)
        return lambda: _reduce(parts)


class SparseNarrow(Sparse):
    wire = torch.bfloat16


class SparseInBackward(Sparse):
    in_backward = True


class SparseNarrowInBackward(SparseNarrow):
    in_backward = True


WAYS: dict[str, type[Way]] = {
    "alone": Way,
    "dense fp32": DenseWide,
    "dense bf16": DenseNarrow,
    "sparse fp32": Sparse,
    "sparse bf16": SparseNarrow,
    "sparse fp32 in backward": SparseInBackward,
    "sparse bf16 in backward": SparseNarrowInBackward,
}


def _reduce(parts: tuple[Tensor, ...]) -> None:
    for work in [dist.all_reduce(part, async_op=True) for part in parts]:
        work.wait()


@contextmanager
def _stopwatch(device: torch.device, seconds: list[float]) -> Iterator[None]:
    """Adds the time of the slowest rank."""
    dist.barrier()
    start = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took = torch.tensor(time.perf_counter() - start)
    dist.all_reduce(took, dist.ReduceOp.MAX)
    seconds.append(float(took))


def _verify(ways: dict[str, Way], before: nn.Module) -> None:
    """Raise RuntimeError unless ranks and ways agree after a step."""
    for name, way in ways.items():
        if name == "alone":
            continue
        for key, parameter in way.model.named_parameters():
            theirs = parameter.detach().clone()
            dist.broadcast(theirs, 0)
            if not torch.equal(theirs, parameter):
                raise RuntimeError(f"{name}: rank {ranks.rank()} has another {key} than rank 0 after a step")
    dense = dict(ways["dense fp32"].model.named_parameters()) if "dense fp32" in ways else {}
    start = dict(before.named_parameters())
    for name in ("sparse fp32", "sparse fp32 in backward"):
        for key, parameter in ways[name].model.named_parameters() if name in ways and dense else ():
            moved = (dense[key] - start[key]).abs().max()
            allowed = TOLERANCE * moved + ROUNDING * parameter.abs().max()
            if not (parameter - dense[key]).abs().max() <= allowed:
                raise RuntimeError(f"{name}: {key} is not what the dense exchange gives")


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Median seconds and bytes of each way."""
    import timm

    device = torch.device("cuda", ranks.device_index()) if arguments.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(SEED)
    options = {"img_size": arguments.image_size} if arguments.image_size else {}
    model = timm.create_model(arguments.model, num_classes=0, **options).to(device)
    rows = BatchRows.of(arguments.batch // 2)
    images = torch.rand(2, arguments.batch // 2, 3, *model.patch_embed.img_size)[:, rows.own].flatten(0, 1).to(device)
    labels = (torch.arange(arguments.batch // 2) % 10)[rows.own].to(device)
    named = [(name, p.detach().cpu()) for name, p in model.named_parameters()]
    selection = Selection.random(named, RATE, SEED, "bias|norm")
    ways: dict[str, Way] = {}
    steps: dict[str, list[float]] = {name: [] for name in arguments.way}
    exchanges: dict[str, list[float]] = {name: [] for name in arguments.way}
    progress = Progress(len(arguments.way) + arguments.rounds) if ranks.is_first() else None
    for name in arguments.way:
        if progress:
            progress.begin(f"{name}: the first step")
        ways[name] = WAYS[name](model, selection)
        ways[name].step(images, labels, rows)
        if progress:
            progress.advance("done")
    _verify(ways, model)
    for round_number in range(arguments.rounds):
        if progress:
            progress.begin(f"round {round_number + 1}")
        for name, way in ways.items():
            with _stopwatch(device, steps[name]):
                way.step(images, labels, rows)
            if (exchange := way.exchange()) is not None:
                exchange()
                with _stopwatch(device, exchanges[name]):
                    exchange()
        if progress:
            progress.advance(", ".join(f"{name} {1e3 * times[-1]:.0f} ms" for name, times in steps.items()))
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    return {
        "machine": machine.facts(device) | {"threads": torch.get_num_threads()},
        "ranks": ranks.size(),
        "backend": "nccl" if device.type == "cuda" else "gloo",
        "model": arguments.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "matrix_parameters": matrices,
        "batch": arguments.batch,
        "image_size": list(model.patch_embed.img_size),
        "rows": _rows(ways, steps, exchanges),
    }


def _rows(
    ways: dict[str, Way], steps: dict[str, list[float]], exchanges: dict[str, list[float]]
) -> list[dict[str, Any]]:
    alone = statistics.median(steps["alone"]) if "alone" in steps else None
    spread = max(steps["alone"]) - min(steps["alone"]) if "alone" in steps else 0.0
    found = []
    for name, way in ways.items():
        step = statistics.median(steps[name])
        exchange = statistics.median(exchanges[name]) if exchanges[name] else None
        hidden = None
        if exchange is not None and alone is not None and exchange > spread:
            hidden = min(1.0, max(0.0, 1 - (step - alone) / exchange))
        found.append(
            {
                "way": name,
                "bytes": way.exchanged(),
                "step_ms": 1e3 * step,
                "exchange_ms": None if exchange is None else 1e3 * exchange,
                "hidden": hidden,
            }
        )
    return found


def table(result: dict[str, Any]) -> str:
    """A title, and one line a way."""
    where = result["machine"]["gpu"] or result["machine"]["cpu"]
    title = (
        f"{result['model']}, batches of {result['batch']}, {result['ranks']} processes, {result['backend']}, {where}"
    )
    lines = [
        [
            row["way"],
            f"{row['bytes'] / 1e6:.2f}",
            f"{100 * row['bytes'] / (4 * result['parameters']):.2f}",
            f"{row['step_ms']:.0f}",
            "" if row["exchange_ms"] is None else f"{row['exchange_ms']:.1f}",
            "" if row["hidden"] is None else f"{100 * row['hidden']:.0f}",
        ]
        for row in result["rows"]
    ]
    headings = ["way", "MB a step and rank", "% of dense fp32", "step, ms", "exchange by itself, ms", "hidden, %"]
    return f"{title}\n\n{markdown(headings, lines, ['way'])}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224", help="a vision transformer of timm's")
    parser.add_argument("--batch", type=int, default=64, help="images a step of all ranks: two views of half as many")
    parser.add_argument("--image-size", type=int, help="pixels; the model's own by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=5, help="steps of each way")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS), help="which ways; all by default")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    if not launch.launched():
        parser.error("start this with torchrun --nproc-per-node 2 (or more)")
    with launch.processes():
        if arguments.batch % 2 or arguments.batch < 2 * ranks.size():
            parser.error(f"--batch is {arguments.batch}, expected an even number, two images or more for each rank")
        result = measured(arguments)
        if ranks.is_first():
            print(table(result))
            if arguments.json:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(arguments.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
