"""Any tree of class folders: with a part for training and one for testing, or one tree of which a share is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mist_ext.data.class_folders import labelled, two_parts
from mist_ext.data.decode import AS_SHOWN, suffixes
from mist_ext.data.image_sets import ImageSet
from mist_ext.data.scan_report import ScanReport, hidden, is_folder
from mist_ext.data.source import Source
from mist_ext.data.transforms import RandomCrops
from mist_ext.data.tree import Tree, class_trees, listed, scan_beside
from mist_ext.system.names import printable

TEST_FOLDERS = ("test", "val")  # the first that is there
LIKE_PARTS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev"))


def folder(path: Path, test_fraction: float, name: str | None = None) -> Source:
    """Read ``path/{train,test}/<class>/``, ``path/{train,val}/<class>/`` or ``path/<class>/``.

    Parameters
    ----------
    path : Path
    test_fraction : float
        Share of every class that is held out where there is one tree: the same images in every run.
    name : str, optional
        The source's, which the images held out depend on; by default ``folder-`` and the path's last part.

    Returns
    -------
    Source
        10 tasks by default, or as many as there are classes.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or one with train/ alone.
    ValueError
        If a class is empty or in one part only, or names differ in case only; if what would be taken for classes are
        the parts of a split, or a folder around them; if all of a class's images would be in one part.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is no folder; looked for class folders in {path / 'train'} and {path / 'test'} (or "
            f"{path / 'val'}), or in {path} itself"
        )
    name = name or f"folder-{printable(path.resolve().name)}"  # folders of results are called so
    test = next((path / each for each in TEST_FOLDERS if (path / each).is_dir()), None)
    if not _is_part(path / "train", test):
        return _one_tree(path, test_fraction, name)
    if test is None:
        raise FileNotFoundError(f"{path} has train/ but neither test/ nor val/; add one, or give {path / 'train'}")
    return _two_trees(path, test, name)


def _two_trees(path: Path, test: Path, name: str) -> Source:
    class_names, train, tested, report = two_parts(path / "train", test, suffixes(), as_shown=True)
    scan_beside(path, ("train", test.name), suffixes(), report)
    layout = f"{{train,{test.name}}}/<class>/ in {path}: {_counts(train, tested)}; {AS_SHOWN}"
    return _source(name, class_names, train, tested, layout, report)


def _one_tree(path: Path, test_fraction: float, name: str) -> Source:
    report = ScanReport()
    (tree,) = class_trees([path], suffixes(), report)
    _require_classes(path, sorted(tree))
    _require_both_parts(path, tree, test_fraction)
    everything = labelled(list(tree.items()), as_shown=True)
    whole = _source(name, tuple(tree), everything, everything, "", report)
    held_out = whole.held_out("test", test_fraction)
    train, tested = everything.subset(~held_out), everything.subset(held_out)
    layout = f"<class>/ in {path}: {_counts(train, tested)}, held out by --test-fraction; {AS_SHOWN}"
    return replace(whole, train=train, test=tested, layout=layout)


def _require_classes(path: Path, names: list[str]) -> None:
    """Raise ValueError for folders that hold folders alone, if it is one or they have the names of parts."""
    entries = [entry for name in names for entry in listed(path / name) if not hidden(entry.name)]
    if not all(map(is_folder, entries)):
        return
    if len(names) == 1:
        (name,) = names
        raise ValueError(
            f"{path} has one class folder, {name!r}, and nothing but folders is in it, which may be the classes; give "
            f"{path / name}"
        )
    if {name.casefold() for name in names} <= LIKE_PARTS:
        raise ValueError(
            f"{path} has the class folders {', '.join(map(repr, names))}, and nothing but folders is in them, as in "
            "the parts of a split; call the parts train and test (or val)"
        )


def _require_both_parts(path: Path, tree: Tree, test_fraction: float) -> None:
    """Raise ValueError if a class is so small that it would be in one part only; the smallest is named."""
    counts = {name: len(images) for name, images in tree.items()}
    small = [name for name, count in counts.items() if not 0 < round(test_fraction * count) < count]
    if not small:
        return
    smallest = min(small, key=counts.__getitem__)
    count, others = counts[smallest], len(small) - 1
    more = f", as of {others} more class{'es' if others > 1 else ''}" if others else ""
    instead = "give another --test-fraction" if count > 1 else "remove the folder"
    raise ValueError(
        f"class {smallest!r} in {path} has {count} image{'s' if count > 1 else ''}, of which a test fraction of "
        f"{test_fraction} leaves none to train or none to test{more}; add images, or {instead}"
    )


def _source(
    name: str, class_names: tuple[str, ...], train: ImageSet, test: ImageSet, layout: str, report: ScanReport
) -> Source:
    return Source(
        name,
        class_names,
        train,
        test,
        min(10, len(class_names)),
        RandomCrops,
        layout=layout,
        remarks=report.remarks(),
        problems=report.problems(),
    )


def _counts(train: ImageSet, test: ImageSet) -> str:
    return f"{len(train):,} training and {len(test):,} test images"


def _is_part(train: Path, test: Path | None) -> bool:
    """Return whether a folder called train is the training part; if it holds only images, it is a class of trains."""
    if not train.is_dir():
        return False
    entries = listed(train)
    has_images = any(Path(entry.name).suffix.lower() in suffixes() for entry in entries)
    return not has_images or (test is not None and any(is_folder(entry) for entry in entries))
