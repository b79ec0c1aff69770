"""Trees of class folders, walked: every folder once, whatever links lead to it, and what is not read is counted."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mist_ext.data.scan_report import (
    HIDDEN,
    OTHER_FOLDERS,
    REPEATED_LINKS,
    SUBFOLDERS,
    ScanReport,
    hidden,
    is_folder,
    suffix_of,
)
from mist_ext.system.names import printable

Tree = dict[str, list[Path]]  # the images of each class


def class_trees(folders: Sequence[Path], suffixes: frozenset[str], report: ScanReport) -> list[Tree]:
    """Return the images in the class folders of one or more folders, classes and images sorted.

    Links to folders are followed, except to those that are read without them or contain the tree.

    Parameters
    ----------
    folders : sequence of Path
        The parts of one data set.
    suffixes : frozenset of str
        Of images, in lower case.
    report : ScanReport
        To which everything else is added.

    Raises
    ------
    ValueError
        If there is no class folder, one without images, one that is read already, or two that
        `refuse_ambiguous_names` refuses.
    OSError
        If a folder cannot be listed.
    """
    walk = _Walk(suffixes, report)
    for folder in folders:
        walk.start(folder)
    trees = [walk.classes(folder) for folder in folders]
    walk.finish()
    for folder, tree in zip(folders, trees, strict=True):
        refuse_ambiguous_names(sorted(tree), folder)
        for name, images in tree.items():
            if not images:
                raise ValueError(
                    f"class {name!r} is empty: {folder / name} has no images{_instead(folder / name)}; add some, or "
                    "remove the folder"
                )
    return [{name: _in_order(images) for name, images in tree.items()} for tree in trees]


def scan_beside(folder: Path, parts: Sequence[str], suffixes: frozenset[str], report: ScanReport) -> None:
    """Add what lies beside the folders of the parts."""
    for entry in listed(folder):
        if entry.name not in parts:
            report.add_entry(entry, OTHER_FOLDERS, suffixes)


class _Walk:
    """Reads folders, each once by device and inode: links wait until all real folders are read."""

    def __init__(self, suffixes: frozenset[str], report: ScanReport) -> None:
        self.suffixes = suffixes
        self.report = report
        self.visited: dict[tuple[int, int], str] = {}
        # What waits: folders, where their images go, and whether they are classes.
        self.real: deque[tuple[str, list[str], bool]] = deque()
        self.links: deque[tuple[str, list[str], bool]] = deque()

    def start(self, folder: Path) -> None:
        """Record a part and the folders that contain it as visited."""
        if first := self._first_visit(str(folder)):
            raise ValueError(f"{folder} and {first} are the same folder; each part needs its own images")
        for parent in folder.resolve().parents:
            self._first_visit(str(parent))

    def classes(self, folder: Path) -> dict[str, list[str]]:
        """Return the classes, each with the list to which its images will be added."""
        tree: dict[str, list[str]] = {}
        for entry in listed(folder):
            if is_folder(entry) and not hidden(entry.name):
                tree[entry.name] = []
                self._wait(entry, tree[entry.name], is_class=True)
            else:
                self.report.add_entry(entry, OTHER_FOLDERS, self.suffixes)  # no folder
        if not tree:
            raise ValueError(f"{folder} has no class folders, expected one folder of images for each class")
        return tree

    def finish(self) -> None:
        """Read what waits: real folders first, then what links lead to."""
        while self.real or self.links:
            self._enter(*(self.real or self.links).popleft())

    def _enter(self, path: str, images: list[str], is_class: bool) -> None:
        """Read a folder, if nothing else has."""
        if first := self._first_visit(path):
            if is_class:
                raise ValueError(
                    f"class folder {printable(str(path))} is {printable(str(first))}, which is read already or "
                    "contains the tree; remove the link, or put copies of the images there"
                )
            self.report.add(REPEATED_LINKS, path)
            return
        if not is_class:
            self.report.add(SUBFOLDERS, path)
        for entry in listed(path):
            if hidden(entry.name):
                self.report.add(HIDDEN, entry.path)
            elif is_folder(entry):
                self._wait(entry, images, is_class=False)
            elif suffix_of(entry.name) in self.suffixes:
                images.append(entry.path)
            else:
                self.report.add_file(entry.name)

    def _wait(self, entry: os.DirEntry[str], images: list[str], is_class: bool) -> None:
        (self.links if entry.is_symlink() else self.real).append((entry.path, images, is_class))

    def _first_visit(self, path: str) -> str:
        """Return the path by which a folder was visited before; if it is new, record it and return an empty string."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise _not_readable(path, error) from error
        first = self.visited.setdefault((status.st_dev, status.st_ino), path)
        return "" if first is path else first


def listed(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return what is in a folder, sorted by name; OSError with advice if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _not_readable(folder, error) from error


def _not_readable(folder: str | os.PathLike[str], error: OSError) -> OSError:
    return OSError(f"{printable(os.fspath(folder))} cannot be read ({error.strerror}); make it readable, or remove it")


def refuse_ambiguous_names(names: list[str], place: Path | str) -> None:
    """Raise ValueError for classes that some systems take for one: case and the spelling of accents do not matter."""
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            raise ValueError(
                f"classes {twin!r} and {name!r} in {place} differ in case only, and would be one class on some "
                "systems; rename one, or join them"
            )


def _in_order(images: list[str]) -> list[Path]:
    """Return images sorted folder by folder, as torchvision's ImageFolder does."""
    return [Path(path) for path in sorted(images, key=os.path.split)]


def _instead(folder: Path) -> str:
    """Return in words what a folder without images holds instead."""
    there = ScanReport()
    for _, _, files in os.walk(folder):
        for file in files:
            there.add_file(file)
    return "".join(f" ({words})" for words in (*there.problems(), *there.remarks()))
