"""Task deltas: how large a file is, and what it takes to make, save, load, apply, undo and swap one, beside rivals.

    python bench/deltas.py --threads 2 --alone --json deltas.json
    python bench/deltas.py --model vit_ti --rounds 3

Two tasks are made up: 5 % of each matrix, drawn at random, and all vectors differ from the base. Random positions are
the worst case, since they touch most cache lines. Everything is verified bit for bit before it is timed. All calls take
turns on cold caches; what a call changes is taken back, untimed. Medians are shown.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import torch
from models import MODELS, model_name
from others import Others, warn
from progress import markdown
from timing import Stopwatch
from torch import Tensor, nn

from mist_ext.deltas import TaskDelta, state_digest
from mist_ext.deltas.tensors import bits
from mist_ext.kernels import ops
from mist_ext.system.files import write_atomically

RATE = 0.05
LINE = 64  # bytes of a cache line
State = dict[str, Tensor]


@dataclass
class Timed:
    """A call, and what takes back its effect."""

    call: Callable[[], object]
    back: Callable[[], object] = lambda: None


def task(base: State, seed: int) -> State:
    """A state in which a part of each matrix, and every vector, has other values."""
    generator = torch.Generator().manual_seed(seed)
    after = {}
    for name, tensor in base.items():
        chosen = torch.rand(tensor.shape, generator=generator) < (RATE if tensor.ndim > 1 else 1)
        after[name] = tensor + chosen * torch.randn(tensor.shape, generator=generator).mul_(1e-3)
    return after


def sizes(base: State, after: State, delta: TaskDelta, folder: Path) -> dict[str, float]:
    """Bytes of our files, of the dense difference compressed, and of what no code of random positions goes below."""
    delta.save(folder / "both")
    forward = TaskDelta.between(base, after, forward_only=True)
    forward.save(folder / "forward")
    difference = b"".join(bytes((bits(after[n]) ^ bits(base[n])).view(torch.uint8).numpy()) for n in base)
    bound = 0.0
    for change in forward.changes.values():
        n, k = change.numel, change.entries
        places = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if k < n else 0.0
        bound += places / math.log(2) / 8 + k * change.new.element_size()
    return {
        "checkpoint": sum(t.numel() * t.element_size() for t in base.values()),
        "forward-only file": (folder / "forward").stat().st_size,
        "file, both ways": (folder / "both").stat().st_size,
        "dense difference, zlib -1": len(zlib.compress(difference, 1)),
        "entropy bound, forward-only": round(bound),
    }


def traffic(a: TaskDelta, b: TaskDelta) -> dict[str, int]:
    """Bytes that putting b in place of a cannot do without: lines that either changes, read and written, and lists."""
    lines, lists = 0, 0
    for name in a.changes.keys() | b.changes.keys():
        touched = set()
        for change in (delta.changes[name] for delta in (a, b) if name in delta.changes):
            at = torch.arange(change.numel) if change.positions is None else change.positions.long()
            touched.update((at * change.new.element_size() // LINE).unique().tolist())
            lists += change.nbytes
        lines += len(touched)
    return {"lines": LINE * lines, "moved by a swap": 2 * LINE * lines + lists}


def ours(model: nn.Module, a: TaskDelta, b: TaskDelta, folder: Path) -> dict[str, Timed]:
    """What a delta is made for, on a model at its base."""
    index = [c.positions for c in a.changes.values() if c.positions is not None]
    numels = [c.numel for c in a.changes.values() if c.positions is not None]
    codes, counts = ops.encode_gaps(index), [len(i) for i in index]
    assert all(torch.equal(x, y) for x, y in zip(ops.decode_gaps(codes, counts, numels), index, strict=True))
    before = copy.deepcopy(model.state_dict())
    swapped = copy.deepcopy(model)
    a.apply_(swapped)
    undone = copy.deepcopy(swapped)
    return {
        "encode": Timed(lambda: ops.encode_gaps(index)),
        "decode": Timed(lambda: ops.decode_gaps(codes, counts, numels)),
        "between": Timed(lambda: TaskDelta.between(before, swapped)),
        "save": Timed(lambda: a.save(folder / "saved")),
        "load": Timed(lambda: TaskDelta.load(folder / "both")),
        "apply": Timed(lambda: a.apply_(model), lambda: a.undo_(model)),
        "undo": Timed(lambda: a.undo_(undone), lambda: a.apply_(undone)),
        "swap": Timed(lambda: a.swap_(swapped, b), lambda: b.swap_(swapped, a)),
        "state_digest": Timed(lambda: state_digest(before)),
    }


def rivals(model: nn.Module, a: TaskDelta, b: TaskDelta, states: tuple[State, State]) -> dict[str, Timed]:
    """Other ways to put task b in place of task a; each has a model of its own that has task a."""
    full = copy.deepcopy(model)
    full.load_state_dict(states[0])
    indexed = copy.deepcopy(full)
    tensors = indexed.state_dict()
    long = {
        id(c): c.positions.long() for d in (a, b) for c in d.changes.values() if c.positions is not None
    }  # as index_copy_ takes them: made beforehand

    def index_copy(delta: TaskDelta, forward: bool) -> None:
        for name, change in delta.changes.items():
            value = change.new if forward else change.old
            assert value is not None
            if change.positions is None:
                tensors[name].copy_(value)
            else:
                tensors[name].view(-1).index_copy_(0, long[id(change)], value)

    def replace(old: TaskDelta, new: TaskDelta) -> None:
        index_copy(old, forward=False)
        index_copy(new, forward=True)

    left, right = torch.ones(10**8 // 4), torch.ones(10**8 // 4)
    apart = [t.view(-1)[:: LINE // t.element_size()] for t in copy.deepcopy(full).state_dict().values()]
    replace(a, b)
    b.verify(indexed, applied=True)
    replace(b, a)
    made = {
        "load_state_dict": Timed(lambda: full.load_state_dict(states[1]), lambda: full.load_state_dict(states[0])),
        "index_copy_": Timed(lambda: replace(a, b), lambda: replace(b, a)),
        "one entry of each line": Timed(lambda: [t.add_(1) for t in apart]),
        "a.add_(b) of 100 MB": Timed(lambda: left.add_(right)),
    }
    try:
        made["peft SHiRA"] = shira(copy.deepcopy(model), a.entries)
    except ImportError:
        print("peft is not installed, so its SHiRA adapter is left out: pip install '.[peft]'")
    return made


def shira(model: nn.Module, entries: int) -> Timed:
    """Two adapters of about as many entries, merged in turns: they add and subtract, so bits of the base are lost."""
    from peft import ShiraConfig, get_peft_model

    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    rank = round(entries / sum(m.in_features + m.out_features for m in linear.values()))
    config = ShiraConfig(r=max(rank, 1), target_modules=list(linear), init_weights=False)
    adapted = get_peft_model(model, config, adapter_name="first")
    adapted.add_adapter("second", config)

    def use(name: str) -> None:
        adapted.base_model.unmerge_adapter()
        adapted.base_model.set_adapter(name)
        adapted.base_model.merge_adapter()

    adapted.base_model.set_adapter("first")
    adapted.base_model.merge_adapter()
    return Timed(lambda: use("second"), lambda: use("first"))


def in_turns(calls: dict[str, Timed], stopwatch: Stopwatch, rounds: int) -> dict[str, float]:
    """Median milliseconds of each, called once before."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, timed in calls.items():
            seconds = stopwatch.seconds(timed.call)
            timed.back()
            if number:
                taken[name].append(1e3 * seconds)
    return {name: round(statistics.median(each), 3) for name, each in taken.items()}


@torch.no_grad()
def measure(model: nn.Module, rounds: int, stopwatch: Stopwatch) -> dict[str, Any]:
    """Verify, then measure sizes and times."""
    base = copy.deepcopy(model.state_dict())
    states = task(base, 1), task(base, 2)
    a, b = (TaskDelta.between(base, state) for state in states)
    a.apply_(model, verify=True)
    a.verify(model, applied=True)
    a.swap_(model, b)
    b.verify(model, applied=True)
    b.undo_(model)
    a.verify(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = sizes(base, states[0], a, folder)
        moved = traffic(a, b)
        if TaskDelta.load(folder / "both") != a:
            raise AssertionError("the file holds another delta")
        calls = ours(model, a, b, folder) | rivals(model, a, b, states)
        with Others() as others:
            ms = in_turns(calls, stopwatch, rounds)
    a.verify(model)
    return {
        "parameters": sum(t.numel() for t in base.values()),
        "entries": a.entries,
        "bytes": size,
        "traffic": moved,
        "ms": ms,
        # The same bytes at the rate of the strided loop, which reads and writes every line of the model.
        "bound_ms": round(ms["one entry of each line"] * moved["moved by a swap"] / (2 * size["checkpoint"]), 3),
        "others_cores": others.cores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=model_name, default="vit_b", help=f"{', '.join(MODELS)} or a timm model")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads; all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="time at real-time priority, for a busy machine; as root")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    import timm

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cpu")
    model = timm.create_model(MODELS.get(arguments.model, arguments.model), pretrained=False, num_classes=0)
    result = measure(model, arguments.rounds, Stopwatch(device, arguments.alone))
    whole = result["bytes"]["checkpoint"]
    rows = [[name, f"{size / 1e6:.2f}", f"{100 * size / whole:.2f} %"] for name, size in result["bytes"].items()]
    print(markdown(["size", "MB", "of the checkpoint"], rows))
    print(markdown(["call", "ms"], [[name, f"{ms:.2f}"] for name, ms in result["ms"].items()]))
    print(f"a swap moves {result['traffic']['moved by a swap'] / 1e6:.0f} MB, at best in {result['bound_ms']:.1f} ms")
    if not arguments.alone:
        warn(result["others_cores"])
    if arguments.json:
        about = {
            "machine": machine.facts(device),
            "model": arguments.model,
            "threads": arguments.threads,
            "alone": arguments.alone,
        }
        write_atomically(arguments.json, json.dumps(about | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
