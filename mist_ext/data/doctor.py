"""Examines a data set's images: which cannot be decoded, which are in both parts, and whether the counts are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool

import torch
from PIL import Image

from mist_ext.data import published_splits
from mist_ext.data.source import BrokenImage, Images, ImageSet, Source
from mist_ext.distributed import ranks

SAMPLED = 32  # pixels a side of which a fingerprint is made
AT_ONCE = 16  # images that a thread takes
# More shared images than this share of the test part are no slip of those who made the split.
TOLERATED = 0.01

Track = Callable[[Iterable["Inspected"], str, int], Iterable["Inspected"]]  # shows progress: what, of how many


@dataclass(frozen=True)
class Inspected:
    """One image.

    Attributes
    ----------
    row : int
    fingerprint : bytes
        Equal for equal pixels; empty where the image cannot be decoded.
    problem : str
        Why it cannot be decoded, with its name; else empty.
    """

    row: int
    fingerprint: bytes = b""
    problem: str = ""


@dataclass
class Findings:
    """What an examination has found.

    Attributes
    ----------
    problems : list of str
        What makes results wrong, or stops a run.
    remarks : list of str
        What is worth knowing.
    """

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect(images: ImageSet, rows: Sequence[int], threads: int | None = None) -> Iterator[Inspected]:
    """Decode images fully, on all cores, in any order.

    Threads are enough: Pillow lets go of the interpreter while it decodes.
    """

    def one(row: int) -> Inspected:
        try:
            image = images.read(row)
        except BrokenImage as error:
            return Inspected(row, problem=str(error))
        return Inspected(row, fingerprint(image))

    with ThreadPool(threads or max(1, cores() // ranks.on_this_machine())) as pool:
        yield from pool.imap_unordered(one, rows, chunksize=AT_ONCE)


def fingerprint(image: Image.Image) -> bytes:
    """Of some of the pixels, so that it costs nothing beside the decoding; equal ones are compared in full later.

    Of pixels and not of the file: a copy whose metadata were stripped, or that was saved anew without loss, is found.
    """
    width, height = image.size
    sample = image.resize((min(width, SAMPLED), min(height, SAMPLED)), Image.Resampling.NEAREST)
    return hashlib.blake2b(b"%d %d " % image.size + sample.tobytes(), digest_size=16).digest()


def unreadable(
    images: ImageSet, rows: Sequence[int], track: Callable[[Iterable[Inspected]], Iterable[Inspected]] = iter
) -> list[tuple[int, str]]:
    """The images that cannot be decoded, in order: row, and a message that names the file. None of those in memory.

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
    findings = Findings()
    _counts(source, findings)
    seen = {}
    for part, images in (("training", source.train), ("test", source.test)):
        each_one = track(inspect(images, range(len(images))), f"{part} images", len(images))
        inspected = sorted(each_one, key=lambda one: one.row)
        findings.problems += [each.problem for each in inspected if each.problem]
        seen[part] = [each for each in inspected if not each.problem]
    _shared(source, seen["training"], seen["test"], findings)
    return findings


def _counts(source: Source, findings: Findings) -> None:
    """Classes and images against the published numbers."""
    train, test = len(source.train), len(source.test)
    expected = published_splits.SPLITS.get(source.name)
    if expected is None:
        return
    classes = published_splits.CLASSES[source.name]
    if len(source.class_names) != classes:
        findings.problems.append(f"{len(source.class_names)} classes, expected {classes}")
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


def _shared(source: Source, train: list[Inspected], test: list[Inspected], findings: Findings) -> None:
    """Images that are in both parts, pixel for pixel."""
    by_fingerprint: dict[bytes, list[int]] = {}
    for each in train:
        by_fingerprint.setdefault(each.fingerprint, []).append(each.row)
    pairs = []
    for each in test:
        candidates = by_fingerprint.get(each.fingerprint, [])
        pixels = source.test.read(each.row).tobytes() if candidates else b""
        pairs += [(row, each.row) for row in candidates if source.train.read(row).tobytes() == pixels]
    if not pairs:
        return
    # As many images as were published: those who made the split have missed a few.
    published = published_splits.matching(source.name, len(source.train), len(source.test)) is not None
    twice = len({row for _, row in pairs})
    names = source.class_names
    lines = [f"{twice} test images are also in the training part, pixel for pixel:"]
    for mine, yours in pairs:
        first, second = (names[int(part.labels[row])] for part, row in ((source.train, mine), (source.test, yours)))
        other = "" if first == second else f" (classes {first} and {second})"
        lines.append(f"  {source.train.where(mine)} = {source.test.where(yours)}{other}")
    if published and twice <= TOLERATED * len(source.test):
        findings.remarks.append("\n".join(["The counts are as published, yet " + lines[0], *lines[1:]]))
    else:
        findings.problems.append("\n".join(lines))


def per_class(images: ImageSet, classes: int) -> tuple[int, int, int]:
    """Images in the smallest, the median and the largest class."""
    counts = torch.bincount(images.labels, minlength=classes)
    return int(counts.min()), int(counts.median()), int(counts.max())
