"""The folder of a run: made without losing anything, and recognised again when the run goes on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

import mist_ext
from mist_ext import config, data
from mist_ext.config import Config
from mist_ext.config.option import read_options
from mist_ext.results import manifest
from mist_ext.results.manifest import CONFIG, Manifest
from mist_ext.system import lock
from mist_ext.system.bounded_files import read_json
from mist_ext.system.files import write_atomically

_SHOWN = 10  # files that an error names


class _Data(msgspec.Struct):
    tasks: int


class _Config(msgspec.Struct):
    data: _Data
    seeds: list[int]


class _Run(msgspec.Struct):
    seed: int
    tasks: list[msgspec.Raw]


class _Finished(msgspec.Struct):
    """What a complete `results.json` has, of any version."""

    config: _Config
    runs: list[_Run]
    summary: dict[str, Any]


@contextmanager
def begun(options: Config) -> Iterator[Path]:
    """Make the output folder of a new run, without what an earlier run has left, and keep other processes out of it.

    Raises
    ------
    FileExistsError
        If it is a file, or used and ``overwrite`` is not given, or if it holds what no run has written.
    PermissionError
        If it cannot be written.
    ValueError
        If another process works in it.
    """
    out = Path(options.out) if options.out else _folder_of_now()
    _left(out, options.overwrite)  # before a lock is put into a folder that is somebody else's
    out.mkdir(parents=True, exist_ok=True)
    with lock.locked(out):
        # Until here, another run may have begun and ended there.
        for path in reversed(_left(out, options.overwrite)):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        _new_manifest().write(out)
        write_atomically(out / CONFIG, config.to_yaml(options))
        yield out


def _folder_of_now() -> Path:
    """Make a folder in runs/ named by date and time, with a number appended if another run began in that second."""
    name = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    _require_writable(name)
    own, number = name, 1
    while True:
        try:
            own.mkdir(parents=True)
        except FileExistsError:
            number += 1
            own = name.with_name(f"{name.name}-{number}")
        else:
            return own


def used(out: Path) -> bool:
    """Return whether a folder holds more than what an interrupted start leaves."""
    return out.is_dir() and bool(manifest.sorted_out(out, [lock.FILE, manifest.FILE])[1])


def _left(out: Path, overwrite: bool) -> list[Path]:
    """Return what an earlier run left in a folder and is to be removed; an error if the folder cannot be used."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"output folder {out} is a file; choose another with --out")
    if not overwrite and used(out):
        if not (out / CONFIG).exists():
            raise FileExistsError(
                f"output folder {out} is already used, and no run was begun in it; choose another with --out"
            )
        raise FileExistsError(
            f"output folder {out} is already used; choose another with --out, give --overwrite, or go on with the run "
            f"in it: mist run --resume {out}"
        )
    _require_writable(out)
    if not out.exists():
        return []
    earlier = manifest.read(out)
    own, others = manifest.sorted_out(out, [lock.FILE, *(earlier.files if earlier else [])])
    if others:
        shown = ", ".join(str(path.relative_to(out)) for path in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise FileExistsError(
            f"output folder {out} holds what no run has written there: {shown}{more}. --overwrite removes a run's own "
            "files alone, and has removed nothing; move these away, or choose another folder with --out"
        )
    # The lock is held; the others are replaced at last, so that the folder is a run's at any moment.
    kept = [out / name for name in (lock.FILE, manifest.FILE, CONFIG)]
    own = [path for path in own if path not in kept]
    for folder in {path.parent for path in own}:
        _require_writable(folder)
    return own


def _new_manifest() -> Manifest:
    return Manifest(mist_ext.__version__, list(manifest.OF_EVERY_RUN))


def _require_writable(out: Path) -> None:
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise FileExistsError(f"output folder {out} cannot be made: {existing} is a file; choose another with --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output folder {out} cannot be written: no permission for {existing}; choose another with --out"
        )


def claim(out: Path, files: Iterable[str], name: str, images: str, weights: str | None) -> None:
    """Name in the manifest what the run in a folder will write there, and what it works on.

    Parameters
    ----------
    out : Path
    files : iterable of str
        As `Manifest.files`.
    name, images : str
        The data set's name and fingerprint.
    weights : str or None
        A digest of the backbone's, where they come from a file.

    Raises
    ------
    ValueError
        If the run was begun on something else.
    """
    before = manifest.read(out) or _new_manifest()
    require_same_data(images, before.data)
    if before.weights is not None and before.weights != weights:
        raise ValueError(
            f"the backbone's weights are not those that the run was begun with: their digest is {weights}, it was "
            f"{before.weights}. Bring those back, or start a new run with another --out"
        )
    everything = list(dict.fromkeys([*before.files, *files]))
    dataclasses.replace(before, files=everything, name=name, data=images, weights=weights).write(out)


def require_same_data(images: str, before: str | None) -> None:
    """Raise ValueError if the data has another fingerprint than a run was begun on."""
    if before is not None and before != images:
        raise ValueError(
            f"the data is not what the run was begun on: it has {images}, it had {before}. Bring that back, or start a "
            "new run with another --out"
        )


def require_there(out: Path, options: Config) -> None:
    """Raise FileNotFoundError if the folder of images or the file of weights of a run that goes on is gone."""
    images = Path(options.data.removeprefix(data.FOLDER)) if options.data.startswith(data.FOLDER) else None
    weights = Path(options.weights) if weights_file(options) else None
    for path, how in ((images, f"--data {data.FOLDER}"), (weights, "--weights ")):
        if path is not None and not path.exists():
            raise FileNotFoundError(
                f"{path}, which the run in {out} was begun with, is not there; if it was moved, add {how}NEW/PLACE"
            )


def absolute(options: Config) -> Config:
    """Return the options with absolute paths, since a run may be resumed from another working directory."""
    own: dict[str, Any] = {}
    if options.data_root is not None:
        own["data_root"] = str(data.root_folder(options.data_root).absolute())
    if options.data.startswith(data.FOLDER):
        own["data"] = data.FOLDER + str(Path(options.data.removeprefix(data.FOLDER)).expanduser().absolute())
    if weights_file(options):
        own["weights"] = str(Path(options.weights).absolute())
    return dataclasses.replace(options, **own)


def weights_file(options: Config) -> bool:
    """Return whether the backbone's weights come from the user's own file."""
    return options.weights not in ("pretrained", "none")


def moved(before: Config, options: Config) -> Config:
    """Return the options of a run with new paths of the same kind; whether they hold the same, `claim` knows."""
    own: dict[str, Any] = {}
    if before.data.startswith(data.FOLDER) and options.data.startswith(data.FOLDER):
        own["data"] = options.data
    if weights_file(before) and weights_file(options):
        own["weights"] = options.weights
    return dataclasses.replace(before, **own)


def data_name(out: Path) -> str | None:
    """Return the name of the data set that a run began with; None if it was not loaded yet."""
    known = manifest.read(out)
    return known.name if known else None


def read_config(out: Path) -> Config:
    """Return the configuration of the run that was begun in a folder.

    Raises
    ------
    FileNotFoundError
        If none was.
    ValueError
        If it is damaged, or of another version.
    """
    file = out / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"no run was begun in {out}: there is no {CONFIG}; give the output folder of a run")
    try:
        given = read_options(file, Config)
        if not given:
            raise ValueError("it is empty")
        try:
            options = Config(**given, out=str(out))
        except OSError as error:  # a class order that became the name of a file
            raise ValueError(f"class_order: {error}") from error
        options.check()
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged or of another version of mist_ext ({error}); start the run anew with --overwrite"
        ) from error
    return options


def finished(experiments: Iterable[Path]) -> bool:
    """Return whether all experiments of a run, given by their folders, are complete."""
    return all(_complete(experiment / "results.json") for experiment in experiments)


def _complete(file: Path) -> bool:
    try:
        found = read_json(file, _Finished)
    except (FileNotFoundError, ValueError):  # which the run writes anew
        return False
    finished_tasks = {run.seed: len(run.tasks) for run in found.runs}
    return bool(found.summary) and finished_tasks == dict.fromkeys(found.config.seeds, found.config.data.tasks)
