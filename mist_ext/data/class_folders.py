"""Trees with one folder per class, in the order of torchvision's ImageFolder, which the published code uses."""

from __future__ import annotations

from pathlib import Path

import torch

from mist_ext.data.image_sets import ImageFiles
from mist_ext.data.published_data_set import Layout, Parts
from mist_ext.data.scan_report import ScanReport
from mist_ext.data.tree import Tree, class_trees, refuse_ambiguous_names

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # ImageFolder's


def split_layout(train: str, test: str, classes: str = "<class>") -> Layout:
    """Return the layout of class folders in a folder for each part."""

    def read(folder: Path) -> Parts:
        return two_parts(folder / train, folder / test, SUFFIXES)

    return Layout(f"{{{train},{test}}}/{classes}/", (train, test), read)


def two_parts(train: Path, test: Path, suffixes: frozenset[str], as_shown: bool = False) -> Parts:
    """Read class folders in a folder for each part; raises as `tree.class_trees` and `parts`."""
    report = ScanReport()
    training, testing = class_trees((train, test), suffixes, report)
    return parts(training, testing, str(train), str(test), report, as_shown)


def parts(
    train: Tree, test: Tree, train_place: str, test_place: str, report: ScanReport | None = None, as_shown: bool = False
) -> Parts:
    """Return the class names in sorted order, and both parts with their labels.

    Raises
    ------
    ValueError
        If a class has images in one part only, or two classes' names are one on some systems.
    """
    refuse_ambiguous_names(sorted({*train, *test}), f"{train_place} and {test_place}")
    for has, lacks, there, missing in ((test, train, test_place, train_place), (train, test, train_place, test_place)):
        alone = sorted(has.keys() - lacks.keys())
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise ValueError(
                f"class {alone[0]!r}{more} is in {there} but not in {missing}; every class needs training and test "
                "images: add them, or remove the class"
            )
    names = tuple(sorted(train))
    images, tested = (labelled([(name, tree[name]) for name in names], as_shown) for tree in (train, test))
    return Parts(names, images, tested, report or ScanReport())


def labelled(classes: list[tuple[str, list[Path]]], as_shown: bool) -> ImageFiles:
    """Return the images of all classes, labelled 0, 1, ... in the order of the classes."""
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(images) for _, images in classes]))
    return ImageFiles([path for _, images in classes for path in images], labels, as_shown)
