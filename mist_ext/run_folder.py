"""The folder of a run: made without losing anything, and recognised again when the run goes on."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import yaml

from mist_ext import config
from mist_ext.config import Config
from mist_ext.files import write_atomically

CONFIG = "run.yaml"


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
        if (path / "results.json").is_file() or (path.is_dir() and path.name in ("checkpoint", "tensorboard")):
            shutil.rmtree(path)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / CONFIG, config.to_yaml(options))
    return out


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


def finished(out: Path, cells: int) -> bool:
    """Whether all cells of the run are complete."""
    files = list(out.glob("*/results.json"))
    return len(files) == cells and all("summary" in json.loads(file.read_text(encoding="utf-8")) for file in files)
