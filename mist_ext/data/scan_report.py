"""Reports what a scan found in a tree of images besides those that are read: counts by kind, and sentences."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter

from mist_ext.system.names import printable

HIDDEN = "hidden files and folders"
OTHER_FILES = "files whose suffix is no image's"
SUBFOLDERS = "folders within class folders, whose images count for the class"
OTHER_FOLDERS = "folders beside those of training and test"
UNDECODABLE = "images of formats that are not decoded here; convert them"
OUTSIDE_CLASSES = "images that are in no class folder"
REPEATED_LINKS = "links to folders that are read already"
PROBLEMS = (UNDECODABLE, OUTSIDE_CLASSES, REPEATED_LINKS)
SHOWN = 3  # names of a kind


class ScanReport:
    """Counts what lies in a tree besides images of classes, by kind and name."""

    def __init__(self) -> None:
        self._names: dict[str, Counter[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one more."""
        self._names.setdefault(kind, Counter())[name] += 1

    def add_file(self, name: str) -> None:
        """Count a file that is not read, by its suffix."""
        kind = mimetypes.guess_type(name, strict=False)[0] or ""
        self.add(UNDECODABLE if kind.startswith("image/") else OTHER_FILES, suffix_of(name) or "without suffix")

    def add_entry(self, entry: os.DirEntry[str], folders: str, suffixes: frozenset[str]) -> None:
        """Count what is in no class folder; ``folders`` is the kind of its folders."""
        if hidden(entry.name):
            self.add(HIDDEN, entry.path)
        elif is_folder(entry):
            self.add(folders, entry.path)
        elif suffix_of(entry.name) in suffixes:
            self.add(OUTSIDE_CLASSES, entry.path)
        else:
            self.add_file(entry.name)

    def remarks(self) -> tuple[str, ...]:
        """Return what is worth knowing, a sentence a kind."""
        return tuple(self._in_words(kind) for kind in self._names if kind not in PROBLEMS)

    def problems(self) -> tuple[str, ...]:
        """Return what makes a data set another than it seems to be, a sentence a kind."""
        return tuple(self._in_words(kind) for kind in self._names if kind in PROBLEMS)

    def _in_words(self, kind: str) -> str:
        names = self._names[kind]
        shown = [printable(name) + (f" {n:,}" if n > 1 else "") for name, n in names.most_common(SHOWN)]
        more = ["..."] if len(names) > SHOWN else []
        read = "" if kind == SUBFOLDERS else "not read: "
        return f"{read}{names.total():,} {kind} ({', '.join(shown + more)})"


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def hidden(name: str) -> bool:
    """Return whether a name belongs to the operating system, such as .DS_Store."""
    return name.startswith((".", "__MACOSX"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
