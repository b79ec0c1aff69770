"""One tree of class folders, whose split is in lists of file names beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mist_ext.data.class_folders import SUFFIXES, parts
from mist_ext.data.published_data_set import Layout, Parts
from mist_ext.data.scan_report import ScanReport
from mist_ext.data.tree import Tree, class_trees
from mist_ext.system.bounded_files import read_text

UNLISTED = "images that are in neither list"


def list_layout(name: str) -> Layout:
    """Return the layout of class folders with lists of the training or the test images, or both.

    Parameters
    ----------
    name : str
        The beginning of the lists' names, such as ``imagenet-r``.
    """

    def read(folder: Path) -> Parts:
        return listed_parts(folder, name)

    contents = f"<wnid>/ and {name}_train.txt or {name}_test.txt (or .yaml; also beside the folder)"
    return Layout(contents, ("n[0-9]*",), read)


def listed_parts(folder: Path, name: str) -> Parts:
    """Read tree and lists.

    A list has one ``<wnid>/<file>`` a line. Folders before it, a label after it and the dashes of a YAML list (as
    CODA-Prompt publishes its split) are passed over. With one list, the other part is what it leaves.

    Raises
    ------
    FileNotFoundError
        If there is no list; the message says what to do.
    ValueError
        If a list names an image that is not there, or one that is in the other list too.
    """
    lists = {part: _find(folder, name, part) for part in ("train", "test")}
    if not any(lists.values()):
        raise FileNotFoundError(
            f"{folder} is one tree without a split, and results depend on it: put {name}_train.txt or {name}_test.txt "
            f"there, with one <wnid>/<file> a line (or {name}_train.yaml and {name}_test.yaml of CODA-Prompt), or "
            "move the images to train/ and test/ folders"
        )
    report = ScanReport()
    (tree,) = class_trees([folder], SUFFIXES, report)
    everything = {f"{label}/{path.name}": path for label, images in tree.items() for path in images}
    chosen = {part: _listed(path, everything) for part, path in lists.items() if path}
    train = chosen["train"] if "train" in chosen else everything.keys() - chosen["test"]
    test = chosen["test"] if "test" in chosen else everything.keys() - chosen["train"]
    if both := sorted(train & test):
        raise ValueError(f"{both[0]} is in {lists['train']} and in {lists['test']} ({len(both)} such images)")
    for name in sorted(everything.keys() - train - test):
        report.add(UNLISTED, name)
    names = [
        str(lists[part] or f"what {lists[other]} leaves") for part, other in (("train", "test"), ("test", "train"))
    ]
    return parts(_part(tree, train), _part(tree, test), names[0], names[1], report)


def _part(tree: Tree, names: set[str]) -> Tree:
    kept = {label: [path for path in images if f"{label}/{path.name}" in names] for label, images in tree.items()}
    return {label: images for label, images in kept.items() if images}


def _find(folder: Path, name: str, part: str) -> Path | None:
    stems = (f"{name}_{part}", f"{name.replace('-', '_')}_{part}", part)
    # Beside the folder only lists that name the data set: a plain train.txt there may be another's.
    places = [*((folder, stem) for stem in stems), *((folder.parent, stem) for stem in stems[:2])]
    paths = (place / f"{stem}{suffix}" for place, stem in places for suffix in (".txt", ".yaml", ".yml"))
    return next((path for path in paths if path.is_file()), None)


def _listed(path: Path, everything: dict[str, Path]) -> set[str]:
    names = set()
    for line in read_text(path).splitlines():
        words = line.strip().removeprefix("- ").strip("'\"").split()
        if words and PurePosixPath(words[0]).suffix.lower() in SUFFIXES:
            names.add("/".join(PurePosixPath(words[0]).parts[-2:]))
    if not names:
        raise ValueError(f"{path} names no images, expected one <wnid>/<file> a line")
    if missing := sorted(names - everything.keys()):
        raise ValueError(f"{path} lists {missing[0]}, which is not there ({len(missing)} of {len(names)} are missing)")
    return names
