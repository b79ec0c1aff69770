"""Images a second of the input pipeline beside those that the backbone takes.

    python bench/input.py --backbone vit_base_patch16_224 --batch 32
    python bench/input.py --data cub200 --data-root DATA --workers 8 --backbone vit_base_patch16_224

Without ``--data`` some hundred JPEG files of 500 x 375 pixels are made, as ImageNet has them. The rows:

decode               Pillow alone, one process
training views       decode, random crop and flip, by the worker processes, as an epoch of tuning reads them
evaluation views     decode, resize and centre crop, by the worker processes, as features are extracted
evaluation, kept     the same images once more, from memory
second view          flip, grey and crop of a batch, on the backbone's device
tuning               forward and backward of both views on the device: what the pipeline has to keep up with
features             forward alone

All take turns, round by round, and medians are compared. The last line says how many times as fast as the backbone
the pipeline is; the two run at the same time, but on a CPU they share its cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from data_check import QUALITY, cores, picture

from mist_ext import backbones, data
from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import ImageFiles, Images
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of
from mist_ext.data.transforms import RandomCrops
from mist_ext.tuners.objective import MutualInformation
from mist_ext.tuners.views import TwoViews

CLASSES = 10


@contextmanager
def made(count: int) -> Iterator[Source]:
    """A source of JPEG files that exist as long as the context."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{row}.jpg") for row in range(count)]
        for row, path in enumerate(paths):
            picture(row).save(path, quality=QUALITY)
        images = ImageFiles(paths, torch.arange(count) % CLASSES)
        names = tuple(f"class {label}" for label in range(CLASSES))
        yield Source("made", names, images, images, tasks=1, transform=RandomCrops, layout="made")


def through(batches: Batches) -> int:
    """Take every batch; the number of images."""
    return sum(len(labels) for _, labels in batches)


def ways(source: Source, backbone: torch.nn.Module, arguments: argparse.Namespace) -> dict[str, Callable[[], int]]:
    """What is timed: each takes some images and says how many."""
    device = torch.device(arguments.device)
    size = backbones.input_spec(backbone).size
    everything = len(source.class_names)

    def task(memory: int) -> Stream:
        views = views_of(source, size, memory=memory, workers=arguments.workers)
        return Stream(source, everything, 1993, views)

    fresh, kept = task(0).tasks[0].test, task(2**40).tasks[0].test
    train = task(0).tasks[0].train
    through(Batches(kept, arguments.batch, None))
    pixels = torch.rand(arguments.batch, 3, size, size, device=device)
    labels = (torch.arange(arguments.batch) % everything).to(device)
    views = TwoViews()
    objective = MutualInformation(int(backbone.num_features)).to(device)
    mixed = torch.autocast(device.type, torch.bfloat16) if arguments.precision == "bf16" else nullcontext()

    def decode() -> int:
        count = min(len(source.train), 64)
        for row in range(count):
            source.train.read(row)
        return count

    def second_view() -> int:
        views(pixels, 1)
        return arguments.batch

    def tuning() -> int:
        with mixed:
            loss = objective(backbone(torch.cat([pixels, pixels])), labels)
        loss.backward()
        backbone.zero_grad()
        return arguments.batch

    def features() -> int:
        with torch.no_grad(), mixed:
            backbone(pixels)
        return arguments.batch

    return {
        "decode": decode,
        "training views": lambda: through(Batches(train, arguments.batch, ("order",), device=device)),
        "evaluation views": lambda: through(Batches(fresh, arguments.batch, None, device=device)),
        "evaluation, kept": lambda: through(Batches(kept, arguments.batch, None, device=device)),
        "second view": second_view,
        "tuning": tuning,
        "features": features,
    }


def rates(calls: dict[str, Callable[[], int]], rounds: int, device: torch.device) -> dict[str, float]:
    """Images a second: the median of some rounds after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            images = call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                taken[name].append(images / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="as --data of mist run; files are made without it")
    parser.add_argument("--data-root")
    parser.add_argument("--images", type=int, default=256, help="how many files are made")
    parser.add_argument("--backbone", default="vit_base_patch16_224", help="with random weights")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--workers", type=int, default=cores(), help="all cores by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    backbone = backbones.create(arguments.backbone, "none").to(device)
    given = nullcontext(data.load(arguments.data, arguments.data_root)) if arguments.data else made(arguments.images)
    with given as source:
        where = "in memory" if isinstance(source.train, Images) else "in files"
        print(f"{len(source.train)} images {where}, {arguments.workers} workers, {arguments.backbone} on {device}")
        found = rates(ways(source, backbone, arguments), arguments.rounds, device)
    for name, rate in found.items():
        print(f"{name:18} {rate:10.1f} images/s")
    for view, use in (("training views", "tuning"), ("evaluation views", "features")):
        print(f"{view} come {found[view] / found[use]:.1f} x as fast as {use} takes them")


if __name__ == "__main__":
    main()
