"""CUB-200-2011: birds (Wah et al. 2011), as the official archive has them or in class folders."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data.class_folders import parts, split_layout
from mist_ext.data.published_data_set import Archive, Layout, Parts, PublishedDataSet
from mist_ext.data.source import Source
from mist_ext.data.tree import Tree
from mist_ext.system.bounded_files import read_text

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def official(folder: Path) -> Parts:
    """Read the official split, which four text files describe."""
    paths, labels, is_train, names = (_table(folder / name) for name in LISTS)
    trees: dict[str, Tree] = {"1": {}, "0": {}}
    for image, path in paths.items():
        try:
            name, part = names[labels[image]], trees[is_train[image]]
        except KeyError as error:
            raise ValueError(
                f"{folder / LISTS[0]} has image {image}, but another list lacks the entry {error}; "
                "unpack the archive anew"
            ) from error
        part.setdefault(name, []).append(folder / "images" / path)
    for tree in trees.values():
        for images in tree.values():
            images.sort()
    return parts(trees["1"], trees["0"], "the training part", "the test part")


def _table(path: Path) -> dict[str, str]:
    """Read lines of a number and a value."""
    table = {}
    for line in read_text(path).splitlines():
        number, _, value = line.strip().partition(" ")
        table[number] = value
    return table


DATA_SET = PublishedDataSet(
    name="cub200",
    folders=("cub", "cub_200", "CUB_200_2011"),
    layouts=(
        split_layout("train", "test"),
        split_layout("train", "val"),
        Layout(", ".join(("images/", *LISTS)), ("images", *LISTS), official),
    ),
    get="The resampled split of the published results is in the archive that the README of "
    "github.com/LAMDA-CL/LAMDA-PILOT links; --download fetches the official split, whose results differ.",
    archive=Archive(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "97eceeb196236b17998738112f37df78",
        "CUB_200_2011",
    ),
)


def cub200(root: Path) -> Source:
    """Return 11,788 images of 200 species, 10 tasks of 20."""
    return DATA_SET.source(root)
