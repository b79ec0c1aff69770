"""Trees with one folder per class, in the order of torchvision's ImageFolder, which the published code uses."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mist_ext.data.on_disk import Layout, Parts
from mist_ext.data.source import ImageFiles

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # ImageFolder's
Tree = dict[str, list[Path]]  # the images of each class


def split_layout(train: str, test: str, classes: str = "<class>") -> Layout:
    """Class folders below one folder for each part."""

    def read(folder: Path) -> Parts:
        return parts(class_tree(folder / train), class_tree(folder / test), f"{folder / train}", f"{folder / test}")

    return Layout(f"{{{train},{test}}}/{classes}/", (train, test), read)


def class_tree(folder: Path) -> Tree:
    """The images in each class folder, both sorted; what is hidden (.DS_Store, ._image.jpg) is left out.

    Raises
    ------
    ValueError
        If there is no class folder, one without images, or two whose names differ in case only.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))
    if not names:
        raise ValueError(f"{folder} has no class folders, expected one folder of images for each class")
    _refuse_twins(names, folder)
    tree = {name: images_below(folder / name) for name in names}
    for name, images in tree.items():
        if not images:
            raise ValueError(
                f"class {name!r} is empty: {folder / name} has no images ({', '.join(sorted(SUFFIXES))}); "
                "add some, or remove the folder"
            )
    return tree


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, sorted."""
    found = []

    def unreadable(error: OSError) -> None:
        raise error

    for inside, _, files in sorted(os.walk(folder, onerror=unreadable, followlinks=True)):
        kept = (file for file in sorted(files) if not _hidden(file) and os.path.splitext(file)[1].lower() in SUFFIXES)
        found += [Path(inside, file) for file in kept]
    return found


def parts(train: Tree, test: Tree, train_place: str, test_place: str) -> Parts:
    """Class names in sorted order, and both parts with their labels.

    Raises
    ------
    ValueError
        If a class has images in one part only.
    """
    _refuse_twins(sorted({*train, *test}), f"{train_place} and {test_place}")
    for has, lacks, there, missing in ((test, train, test_place, train_place), (train, test, train_place, test_place)):
        alone = sorted(has.keys() - lacks.keys())
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise ValueError(
                f"class {alone[0]!r}{more} is in {there} but not in {missing}; every class needs training and test "
                "images: add them, or remove the class"
            )
    names = tuple(sorted(train))
    return names, labelled([(name, train[name]) for name in names]), labelled([(name, test[name]) for name in names])


def labelled(classes: list[tuple[str, list[Path]]]) -> ImageFiles:
    """Images of consecutive labels."""
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor([len(images) for _, images in classes]))
    return ImageFiles([path for _, images in classes for path in images], labels)


def _refuse_twins(names: list[str], place: Path | str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            raise ValueError(
                f"classes {twin!r} and {name!r} in {place} differ in case only, and would be one class on some "
                "systems; rename one, or join them"
            )


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
