"""Any tree of class folders: with a part for training and one for testing, or one tree of which a share is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mist_ext.data.class_folders import SUFFIXES, class_tree, labelled, parts
from mist_ext.data.source import Source
from mist_ext.data.transforms import RandomCrops
from mist_ext.names import printable

TEST_FOLDERS = ("test", "val")  # the first that is there


def folder(path: Path, test_fraction: float) -> Source:
    """Read ``path/{train,test}/<class>/``, ``path/{train,val}/<class>/`` or ``path/<class>/``.

    Parameters
    ----------
    path : Path
    test_fraction : float
        Share of every class that is held out where there is one tree: the same images in every run.

    Returns
    -------
    Source
        10 tasks by default, or as many as there are classes. Its name is ``folder-`` and the path's last part.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or one with train/ alone.
    ValueError
        If a class is empty or in one part only, or names differ in case only.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is no folder; looked for class folders in {path / 'train'} and {path / 'test'} (or "
            f"{path / 'val'}), or in {path} itself"
        )
    name = f"folder-{printable(path.resolve().name)}"  # folders of results are called so
    test = next((path / each for each in TEST_FOLDERS if (path / each).is_dir()), None)
    if _holds_classes(path / "train"):
        if test is None:
            raise FileNotFoundError(f"{path} has train/ but neither test/ nor val/; add one, or give {path / 'train'}")
        class_names, train, tested = parts(class_tree(path / "train"), class_tree(test), str(path / "train"), str(test))
        layout = f"{{train,{test.name}}}/<class>/ in {path}: {len(train):,} training and {len(tested):,} test images"
        return Source(name, class_names, train, tested, min(10, len(class_names)), RandomCrops, layout=layout)
    tree = class_tree(path)
    for label, images in tree.items():
        if not 0 < round(test_fraction * len(images)) < len(images):
            raise ValueError(
                f"class {label!r} in {path} has {len(images)} images, of which a test fraction of {test_fraction} "
                "leaves none to train or none to test; add images, or give another --test-fraction"
            )
    everything = labelled(list(tree.items()))
    whole = Source(name, tuple(tree), everything, everything, min(10, len(tree)), RandomCrops)
    held_out = whole.held_out("test", test_fraction)
    train, tested = everything.subset(~held_out), everything.subset(held_out)
    layout = f"<class>/ in {path}: {len(train):,} training and {len(tested):,} test images, held out by --test-fraction"
    return replace(whole, train=train, test=tested, layout=layout)


def _holds_classes(folder: Path) -> bool:
    """Whether a folder called train is a part; one that holds images itself is a class of trains."""
    return folder.is_dir() and not any(entry.suffix.lower() in SUFFIXES for entry in folder.iterdir())
