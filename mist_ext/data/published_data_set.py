"""A published data set on a user's disk: the layouts that are known, how it is found, and where to get it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mist_ext.data import published_splits
from mist_ext.data.decode import AS_PUBLISHED
from mist_ext.data.image_sets import ImageFiles, ImageSet
from mist_ext.data.scan_report import ScanReport
from mist_ext.data.source import Source
from mist_ext.data.transforms import RandomCrops, Transform


class Parts(NamedTuple):
    """What a layout's folder holds."""

    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    report: ScanReport


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies in its folder.

    Attributes
    ----------
    contents : str
        What is in the folder, as messages show it.
    needs : tuple of str
        Patterns (glob) of paths within the folder, each of which must be there.
    read : callable
        Makes the parts from the folder.
    """

    contents: str
    needs: tuple[str, ...]
    read: Callable[[Path], Parts]


@dataclass(frozen=True)
class Archive:
    """What ``--download`` fetches.

    Attributes
    ----------
    url : str
    md5 : str
        Of the archive, in hexadecimal.
    folder : str
        The only folder in it.
    """

    url: str
    md5: str
    folder: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublishedDataSet:
    """A published data set.

    Attributes
    ----------
    name : str
        As given to ``--data``.
    folders : tuple of str
        Names that its folder has; case, ``-`` and ``_`` do not matter. The first found wins.
    layouts : tuple of Layout
        The first found wins.
    get : str
        A sentence: where to get it.
    archive : Archive, optional
        Only where address and checksum are both public.
    tasks, transform, mean, std
        As `Source` has them.
    """

    name: str
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    get: str
    archive: Archive | None = None
    tasks: int = 10
    transform: type[Transform] = RandomCrops
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def found(self, root: Path) -> list[tuple[Layout, Path]]:
        """Return every layout that is found, with its folder, in order of preference."""
        folders = list(dict.fromkeys(self._folders(root)))
        return [
            (layout, folder)
            for layout in self.layouts
            for folder in folders
            if all(any(folder.glob(needed)) for needed in layout.needs)
        ]

    def _folders(self, root: Path) -> Iterator[Path]:
        """Yield folders of its names below the root, also nested as archives unpack, and the root if it is named so."""
        for name in self.folders:
            for folder in _named(root, name):
                yield folder
                for inner in self.folders:
                    yield from _named(folder, inner)
        if _plain(root.resolve().name) in map(_plain, self.folders):
            yield root

    def source(self, root: Path) -> Source:
        """Read the first layout that is there.

        Raises
        ------
        FileNotFoundError
            If there is none; the message lists what was looked for, and where to get it.
        ValueError
            If there is one, but something is wrong with it.
        """
        there = self.found(root)
        if not there:
            raise FileNotFoundError(self._missing(root))
        layout, folder = there[0]
        class_names, train, test, report = layout.read(folder)
        others = "".join(f"; not used: {other.contents} in {place}" for other, place in there[1:])
        split = published_splits.in_words(self.name, len(train), len(test))
        read_as = f"; {AS_PUBLISHED}" if isinstance(train, ImageFiles) else ""
        return Source(
            self.name,
            class_names,
            train,
            test,
            self.tasks,
            self.transform,
            self.mean,
            self.std,
            f"{layout.contents} in {folder}: {split}{read_as}{others}",
            report.remarks(),
            report.problems(),
        )

    def _missing(self, root: Path) -> str:
        wanted = "\n".join(f"  {layout.contents}" for layout in self.layouts)
        state = "" if root.is_dir() else f"; {root} is no folder"
        unpack = ""
        if self.archive and (root / self.archive.file_name).is_file():
            unpack = f" {self.archive.file_name} is there: --download checks and unpacks it."
        return (
            f"{self.name} is not below --data-root {root}{state}. Looked for a folder {' or '.join(self.folders)} "
            f"there with one of:\n{wanted}\n{self.get}{unpack}"
        )


def _named(root: Path, name: str) -> list[Path]:
    """Return the folders in ``root`` of that name in any spelling, the exact one first."""
    if not root.is_dir():
        return []
    alike = [each for each in root.iterdir() if _plain(each.name) == _plain(name) and each.is_dir()]
    return sorted(alike, key=lambda each: (each.name != name, each.name))


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
