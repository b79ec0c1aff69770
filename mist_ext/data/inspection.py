"""Examines a data set's images: which cannot be decoded, which are there twice, and whether the counts are known."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool

import torch
from PIL import Image

from mist_ext.data import published_splits
from mist_ext.data.decode import DARK, DEEP, BrokenImage
from mist_ext.data.duplicates import find_duplicates
from mist_ext.data.findings import Findings, Inspected
from mist_ext.data.image_sets import Images, ImageSet
from mist_ext.data.source import Source
from mist_ext.distributed import ranks
from mist_ext.system.cores import cores

SAMPLED = 32  # pixels a side of which a fingerprint is made
AT_ONCE = 16  # images that a thread takes

Track = Callable[[Iterable[Inspected], str, int], Iterable[Inspected]]  # shows progress: what, of how many


def inspect(images: ImageSet, rows: Sequence[int], threads: int | None = None) -> Iterator[Inspected]:
    """Decode images fully, on all cores, in any order.

    Threads are enough: Pillow lets go of the interpreter while it decodes.
    """

    def one(row: int) -> Inspected:
        try:
            image, changes = images.inspect(row)
        except BrokenImage as error:
            return Inspected(row, problem=str(error))
        return Inspected(row, fingerprint(image), changes=changes)

    with ThreadPool(threads or max(1, cores() // ranks.on_this_machine())) as pool:
        yield from pool.imap_unordered(one, rows, chunksize=AT_ONCE)


def fingerprint(image: Image.Image) -> bytes:
    """Return a digest of some pixels, cheap beside decoding; images with equal ones are compared in full later.

    Since it is of pixels, not of the file, a copy without metadata or one saved anew without loss is found.
    """
    width, height = image.size
    sample = image.resize((min(width, SAMPLED), min(height, SAMPLED)), Image.Resampling.NEAREST)
    return hashlib.blake2b(b"%d %d " % image.size + sample.tobytes(), digest_size=16).digest()


def unreadable(
    images: ImageSet, rows: Sequence[int], track: Callable[[Iterable[Inspected]], Iterable[Inspected]] = iter
) -> list[tuple[int, str]]:
    """Return the images that cannot be decoded, in order: row, and a message that names it. None of those in memory.

    Parameters
    ----------
    images : ImageSet
    rows : sequence of int
        Which of them to try.
    track : callable, optional
        Passes an iterable through and shows how far it is.
    """
    if isinstance(images, Images):
        return []
    return sorted((each.row, each.problem) for each in track(inspect(images, rows)) if each.problem)


def examine(source: Source, track: Track) -> Findings:
    """Read every image of both parts once.

    Parameters
    ----------
    source : Source
    track : callable
        As `progress.Progress.track`.
    """
    findings = Findings(list(source.problems), list(source.remarks))
    _counts(source, findings)
    seen = []
    for part, images in (("training", source.train), ("test", source.test)):
        each_one = track(inspect(images, range(len(images))), f"{part} images", len(images))
        inspected = sorted(each_one, key=lambda one: one.row)
        findings.problems += [each.problem for each in inspected if each.problem]
        seen.append([each for each in inspected if not each.problem])
    _changes([*seen[0], *seen[1]], findings)
    find_duplicates(source, seen[0], seen[1], findings)
    return findings


def _changes(inspected: list[Inspected], findings: Findings) -> None:
    """Add to the findings how many images decoding has changed, and in which way."""
    counts = Counter(change for each in inspected for change in each.changes)
    if DEEP in counts:  # then these are pictures of the night
        counts[DEEP] += counts.pop(DARK, 0)
    for change, count in counts.items():
        (findings.problems if change == DARK else findings.remarks).append(f"{count:,} images {change}")


def _counts(source: Source, findings: Findings) -> None:
    """Compare the numbers of classes and images with the published ones."""
    train, test = len(source.train), len(source.test)
    classes = published_splits.CLASSES.get(source.name, len(source.class_names))
    if len(source.class_names) != classes:
        findings.problems.append(f"{len(source.class_names)} classes, expected {classes}")
    expected = published_splits.SPLITS.get(source.name)
    if expected is None:
        return
    if split := published_splits.matching(source.name, train, test):
        findings.remarks.append(f"The counts are those of {split.words}.")
    elif published_splits.swapped(source.name, train, test):
        findings.problems.append(
            f"training and test part are swapped: {train:,} and {test:,} images, published are {test:,} and {train:,}; "
            "give the two folders each other's name"
        )
    else:
        known = "; or ".join(f"{split.train:,} and {split.test:,}, {split.words}" for split in expected)
        findings.problems.append(
            f"{train:,} training and {test:,} test images, expected {known}; published results cannot be compared with "
            "what this copy gives"
        )


def per_class(images: ImageSet, classes: int) -> tuple[int, int, int]:
    """Return how many images the smallest, the median and the largest class have."""
    counts = torch.bincount(images.labels, minlength=classes)
    return int(counts.min()), int(counts.median()), int(counts.max())
