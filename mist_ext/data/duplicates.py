"""Finds images that are there more than once, pixel for pixel: in both parts, in two classes, or just twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from mist_ext.data import published_splits
from mist_ext.data.decode import BrokenImage
from mist_ext.data.findings import Findings, Inspected
from mist_ext.data.image_sets import ImageSet
from mist_ext.data.source import Source

# More such images than this share of the test part are no slip of those who made the split.
TOLERATED = 0.01
MOST_LINES = 50  # that name copies


class _Image(NamedTuple):
    part: str
    images: ImageSet
    row: int

    @property
    def label(self) -> int:
        return int(self.images.labels[self.row])

    def where(self) -> str:
        return self.images.where(self.row)


def find_duplicates(source: Source, train: Iterable[Inspected], test: Iterable[Inspected], findings: Findings) -> None:
    """Compare all images by their pixels.

    Only those of equal fingerprints are decoded again, each once.

    Parameters
    ----------
    source : Source
    train, test : iterable of Inspected
        The images of both parts that can be decoded.
    findings : Findings
        To which is added: problems for images in both parts or in two classes (remarks for a few of them in a published
        split), a remark for other copies.
    """
    across, mixed, same = [], [], 0
    for group in _equal(source, train, test, findings):
        trained = [each for each in group if each.part == "training"]
        tested = group[len(trained) :]
        if trained:
            across += [(trained[0], each) for each in tested]
        for alike in (trained, tested):
            copies = [(alike[0], each) for each in alike[1:]]
            mixed += [pair for pair in copies if pair[0].label != pair[1].label]
            same += sum(first.label == second.label for first, second in copies)
    _report(source, "test images are also in the training part, pixel for pixel", across, findings)
    _report(source, "images are in another class of the same part too, pixel for pixel", mixed, findings)
    if same:
        findings.remarks.append(f"{same:,} images are copies of others in their class, pixel for pixel")


def _equal(
    source: Source, train: Iterable[Inspected], test: Iterable[Inspected], findings: Findings
) -> list[list[_Image]]:
    """Return groups of images with equal pixels, in each the training part's first."""
    candidates = defaultdict(list)
    for part, images, inspected in (("training", source.train, train), ("test", source.test, test)):
        for each in inspected:
            candidates[each.fingerprint].append(_Image(part, images, each.row))
    groups = defaultdict(list)
    for fingerprint, alike in candidates.items():
        for image in alike if len(alike) > 1 else ():
            try:
                pixels = image.images.read(image.row).tobytes()
            except BrokenImage as error:  # it was whole a moment ago
                findings.problems.append(str(error))
            else:
                groups[fingerprint + hashlib.blake2b(pixels, digest_size=32).digest()].append(image)
    return [group for group in groups.values() if len(group) > 1]


def _report(source: Source, what: str, pairs: list[tuple[_Image, _Image]], findings: Findings) -> None:
    if not pairs:
        return
    # As many images as were published: those who made the split have missed a few.
    published = published_splits.matching(source.name, len(source.train), len(source.test)) is not None
    names = source.class_names
    lines = [f"{len(pairs)} {what}:"]
    for first, second in pairs[:MOST_LINES]:
        other = "" if first.label == second.label else f" (classes {names[first.label]} and {names[second.label]})"
        lines.append(f"  {first.where()} = {second.where()}{other}")
    lines += [f"  and {len(pairs) - MOST_LINES:,} more"] if len(pairs) > MOST_LINES else []
    if published and len(pairs) <= TOLERATED * len(source.test):
        findings.remarks.append("\n".join(["The counts are as published, yet " + lines[0], *lines[1:]]))
    else:
        findings.problems.append("\n".join(lines))
