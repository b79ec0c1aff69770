"""What a run's folder holds, by name: every file is named in ``manifest.json`` before the run writes it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from mist_ext.system.bounded_files import read_json
from mist_ext.system.files import write_atomically

FILE = "manifest.json"
CONFIG = "run.yaml"
CHECKPOINTS = "checkpoint"  # the folder that holds them while a run is unfinished
_NUMBERS = ("[0-9]" * 6, "[0-9]" * 7)  # of checkpoints
_CHECKPOINT = ("tensors.safetensors", "state.json", "checksums.json", "shards/*")
_FIGURES = ("accuracy", "matrix", "forgetting", "selection", "deltas", "costs")
_SHAPES = ("png", "svg")
_EVENTS = "events.out.tfevents.*"
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")  # what `write_atomically` leaves when it is killed
_UNNAMED = re.compile(r"\.tmp\w{6}")  # the same of safetensors, which does not say what it is to become
# What any run may write; `of_experiments` adds what it depends on.
OF_EVERY_RUN = (
    FILE,
    CONFIG,
    *(f"summary.{kind}" for kind in ("json", "md", "csv", "tex")),
    *(f"accuracy.{kind}" for kind in _SHAPES),
    "report.html",
    *(
        f"{CHECKPOINTS}/{one}/{name}"
        for number in _NUMBERS
        for one in (number, f".{number}.[0-9]*.unfinished")
        for name in _CHECKPOINT
    ),
)


@dataclass
class Manifest:
    """What a run's folder holds, and what the run was begun on.

    Attributes
    ----------
    mist_ext : str
        The version that began the run.
    files : list of str
        Paths in the folder; within one part of a path, ``*`` and ``[0-9]`` stand for what `fnmatch` takes them for.
    name : str or None
        The data set's, which experiments' folders are called after; None until it was loaded.
    data : str or None
        The data set's fingerprint.
    weights : str or None
        A digest of the backbone's, where they came from a file.
    """

    mist_ext: str
    files: list[str]
    name: str | None = None
    data: str | None = None
    weights: str | None = None

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest."""
        write_atomically(folder / FILE, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None where no run was begun.

    Raises
    ------
    ValueError
        If it is damaged, or a file of another kind.
    """
    try:
        return read_json(folder / FILE, Manifest)
    except FileNotFoundError:
        return None


def of_experiments(experiments: Iterable[Path], tuners: Iterable[str], seeds: Iterable[int]) -> list[str]:
    """Return what a run writes into its experiments' folders and of its tuners, as `Manifest.files` has it."""
    figures = [f"{name}.{shape}" for name in _FIGURES for shape in _SHAPES]
    seeds = list(seeds)
    of_seeds = [f"classifier-seed{seed}.safetensors" for seed in seeds]
    for task in ("[0-9]" * digits for digits in (3, 4, 5)):
        of_seeds += [f"{kind}-seed{seed}-task{task}.safetensors" for kind in ("classifier", "delta") for seed in seeds]
    of_seeds += [f"tensorboard/seed-{seed}/{_EVENTS}" for seed in seeds]
    names = ["config.yaml", "results.json", "log.jsonl", *figures, *of_seeds]
    written = [f"{escape(experiment.name)}/{name}" for experiment in experiments for name in names]
    return written + [f"tensorboard/{escape(tuner)}-seed-{seed}/{_EVENTS}" for tuner in tuners for seed in seeds]


def sorted_out(folder: Path, names: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """Return what lies in a folder: what the names stand for, folders before what is in them, and all else.

    Symbolic links are not followed, so nothing outside the folder is ever among them. Of a folder that no name leads
    into, only itself is given.
    """

    def fail(error: OSError) -> None:
        raise error

    patterns = [name.split("/") for name in names]
    own: list[Path] = []
    others: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=fail):
        entered = []
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            parts = path.relative_to(folder).parts
            is_folder = name in folders and not path.is_symlink()
            named = any(_stands_for(pattern, parts, is_folder) for pattern in patterns)
            (own if named else others).append(path)
            if is_folder and named:
                entered.append(name)
        folders[:] = entered
    return own, others


def _stands_for(pattern: list[str], parts: tuple[str, ...], is_folder: bool) -> bool:
    """Return whether a file's path matches a pattern, or a folder's could lead to one that does."""
    if is_folder:
        return len(parts) < len(pattern) and all(map(fnmatchcase, parts, pattern))
    *above, last = parts
    if _UNNAMED.fullmatch(last) and (pattern[-1] == "*" or pattern[-1].endswith(".safetensors")):
        last = pattern[-1]
    elif whole := _TEMPORARY.fullmatch(last):
        last = whole[1]
    return len(parts) == len(pattern) and all(map(fnmatchcase, [*above, last], pattern))
