"""Images a second that `mist data check` examines, beside bare Pillow, which only decodes them, on all cores.

    python bench/data_check.py [--images N] [--rounds N] [--threads N]

JPEG files of 500 x 375 pixels, as ImageNet has them, read from memory (the page cache). Pillow takes the files from a
pool of threads and from one of processes. All take turns within a round, and medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mist_ext.data.image_sets import ImageFiles
from mist_ext.data.inspection import AT_ONCE, inspect
from mist_ext.system.cores import cores

SIZE, QUALITY = (500, 375), 90  # about 45 kB a file
PROCESSES, THREADS, CHECK = "Pillow, processes", "Pillow, threads", "mist data check"


def picture(row: int) -> Image.Image:
    """Shapes at all scales and some noise: JPEG's work depends on the content."""
    random = np.random.default_rng(row)
    image = np.zeros((SIZE[1], SIZE[0], 3))
    for cells in (3, 9, 27, 81):
        coarse = random.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        image += np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), dtype=float) / cells**0.5
    image = image * (255 / image.max()) + random.normal(0, 5, image.shape)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def decode(path: str) -> None:
    """What every reader of an image does at least."""
    with Image.open(path) as image:
        image.load()


def bare(pool: Pool, paths: list[str]) -> None:
    """Decode all images."""
    for _ in pool.imap_unordered(decode, paths, chunksize=AT_ONCE):
        pass


def check(images: ImageFiles, threads: int) -> None:
    """What `mist data check` does with the images of a part."""
    assert not any(each.problem for each in inspect(images, range(len(images)), threads))


def measure(images: int, rounds: int, threads: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each contestant in each round, on the clock and of this process's cores."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{row}.jpg") for row in range(images)]
        for row, path in enumerate(paths):
            picture(row).save(path, quality=QUALITY)
        kilobytes = sum(path.stat().st_size for path in paths) / images / 1e3
        print(f"{images} files of {kilobytes:.0f} kB, {threads} threads or processes, {rounds} rounds")
        files, names = ImageFiles(paths, torch.zeros(images, dtype=torch.int64)), [str(path) for path in paths]
        with get_context("spawn").Pool(threads) as processes, ThreadPool(threads) as pool:
            calls: dict[str, Callable[[], None]] = {
                PROCESSES: lambda: bare(processes, names),
                THREADS: lambda: bare(pool, names),
                CHECK: lambda: check(files, threads),
            }
            clock: dict[str, list[float]] = {name: [] for name in calls}
            busy: dict[str, list[float]] = {name: [] for name in calls}
            for number in range(rounds + 1):
                for name, call in calls.items():
                    start, used = time.perf_counter(), time.process_time()
                    call()
                    if number:  # the first warms up
                        clock[name].append(time.perf_counter() - start)
                        busy[name].append(time.process_time() - used)
    return clock, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=cores(), help="all cores by default")
    arguments = parser.parse_args()
    clock, busy = measure(arguments.images, arguments.rounds, arguments.threads)
    for name, seconds in clock.items():
        print(f"{name:18} {arguments.images / statistics.median(seconds):8.0f} images/s")
    for name in (THREADS, PROCESSES):
        print(f"the check reads {100 * ratio(clock[name], clock[CHECK]):.1f} % as many as {name}")
    print(
        f"of the cores' time alone, which other programs disturb less: {100 * ratio(busy[THREADS], busy[CHECK]):.1f} %"
    )


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The median over the rounds."""
    return statistics.median(one / other for one, other in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
