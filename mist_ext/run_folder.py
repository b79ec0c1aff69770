"""The folder of a run: made without losing anything, and recognised again when the run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mist_ext import config, data
from mist_ext.config import Config
from mist_ext.files import write_atomically

try:
    import fcntl
except ImportError:  # not on Windows, which has no such locks
    fcntl = None  # type: ignore[assignment]

CONFIG = "run.yaml"
CHECKPOINTS = "checkpoint"  # the folder that holds them while a run is unfinished


def prepare(options: Config) -> Path:
    """Make the output folder, without results of an earlier run, and write the configuration there.

    Raises
    ------
    FileExistsError
        If it is a file, or used and ``overwrite`` is not given.
    PermissionError
        If it cannot be written.
    """
    out = Path(options.out) if options.out else Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"output folder {out} is a file; choose another with --out")
    used = sorted(out.iterdir()) if out.exists() else []
    if used and not options.overwrite:
        raise FileExistsError(
            f"output folder {out} is already used; choose another with --out, give --overwrite, or go on with the run "
            f"in it: mist run --resume {out}"
        )
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output folder {out} cannot be written: no permission for {existing}; choose another with --out"
        )
    for path in used:
        if (path / "results.json").is_file() or (path.is_dir() and path.name in (CHECKPOINTS, "tensorboard")):
            shutil.rmtree(path)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / CONFIG, config.to_yaml(options))
    return out


def absolute(options: Config) -> Config:
    """The options with whole paths: a run may go on from another working directory."""
    own: dict[str, Any] = {}
    if options.data_root is not None:
        own["data_root"] = str(data.root_folder(options.data_root).absolute())
    if options.data.startswith(data.FOLDER):
        own["data"] = data.FOLDER + str(Path(options.data.removeprefix(data.FOLDER)).expanduser().absolute())
    if Path(options.weights).is_file():
        own["weights"] = str(Path(options.weights).absolute())
    return dataclasses.replace(options, **own)


def read_config(out: Path) -> Config:
    """The configuration of the run that was begun in a folder.

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
        return Config(**yaml.safe_load(file.read_text(encoding="utf-8")), out=str(out))
    except (TypeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} is damaged or of another version of mist_ext ({error}); start the run anew with --overwrite"
        ) from error


def finished(cells: Iterable[Path]) -> bool:
    """Whether all cells of a run, given by their folders, are complete."""
    return all(_complete(cell / "results.json") for cell in cells)


def _complete(file: Path) -> bool:
    try:
        return "summary" in json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # which the run writes anew
        return False


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from working in a run's folder.

    Raises
    ------
    ValueError
        If one does.
    """
    with open(out / CONFIG, "rb") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(f"another process works on the run in {out}; wait for it or stop it") from error
        yield
