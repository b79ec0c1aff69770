"""How many images the published splits have, by which a copy is recognised."""

from __future__ import annotations

from typing import NamedTuple

RESAMPLED = "the class-incremental field's resampled split (arXiv 2303.07338, appendix)"


class Split(NamedTuple):
    """One published split of a data set.

    Attributes
    ----------
    words : str
        Which it is, and where the counts come from.
    train, test : int
        Images.
    """

    words: str
    train: int
    test: int


CLASSES = {
    "cifar100": 100,
    "imagenet_r": 200,
    "imagenet_a": 200,
    "cub200": 200,
    "cars196": 196,
    "objectnet": 200,
    "omnibenchmark": 300,
    "vtab": 50,
}
SPLITS = {
    "cifar100": (Split("the official split (Krizhevsky 2009)", 50_000, 10_000),),
    # L2P (arXiv 2112.08654) and its successors have the same counts, but draw the images anew.
    "imagenet_r": (Split(RESAMPLED, 24_000, 6_000),),
    "imagenet_a": (Split(RESAMPLED, 5_981, 1_519),),
    "cub200": (
        Split(RESAMPLED, 9_430, 2_358),
        Split("the official split (Wah et al. 2011), not comparable with the resampled one", 5_994, 5_794),
    ),
    "cars196": (Split("the official split (Krause et al. 2013)", 8_144, 8_041),),
    "omnibenchmark": (Split(RESAMPLED, 89_697, 5_985),),
}


def matching(name: str, train: int, test: int) -> Split | None:
    """Return the published split with these numbers of images, or None."""
    return next((split for split in SPLITS.get(name, ()) if (split.train, split.test) == (train, test)), None)


def swapped(name: str, train: int, test: int) -> bool:
    """Return whether these are a published split's numbers of images with training and test swapped."""
    return matching(name, test, train) is not None


def in_words(name: str, train: int, test: int) -> str:
    """Return the numbers of images in words, with the published split that has them."""
    counts = f"{train:,} training and {test:,} test images"
    if split := matching(name, train, test):
        return f"{counts}, {split.words}"
    if swapped(name, train, test):
        return f"{counts}: training and test part are swapped"
    return f"{counts}, no published split" if name in SPLITS else counts
