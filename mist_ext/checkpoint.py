"""A run's state on the disk: written whole or not at all, checked when it is read, the one before it kept.

Each checkpoint is a folder with a number for its name: ``tensors.safetensors``, ``state.json`` and ``checksums.json``.
Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mist_ext.files import sync_folder, write_atomically

KEPT = 2  # the newest one, and the one before it in case that is damaged
TENSORS, STATE, CHECKSUMS = "tensors.safetensors", "state.json", "checksums.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it and what to do."""


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write a checkpoint beside the earlier ones, then remove all but the last two.

    Parameters
    ----------
    folder : Path
        Holds the checkpoints; made if it does not exist.
    state : dict
        Nested dicts, lists and tuples of tensors, numbers, strings and None.

    Returns
    -------
    Path
        The checkpoint's own folder.

    Raises
    ------
    OSError
        If it cannot be written; the earlier checkpoints are untouched then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.unfinished"):
        shutil.rmtree(leftover)
    earlier = _numbered(folder)
    final = folder / f"{int(earlier[-1].name) + 1 if earlier else 1:06}"
    unfinished = folder / f".{final.name}.unfinished"
    unfinished.mkdir()
    tensors: dict[str, Tensor] = {}
    tree = _without_tensors(state, "", tensors, set())
    try:
        save_file(tensors, unfinished / TENSORS)
    except SafetensorError as error:  # a full disk, for one
        shutil.rmtree(unfinished)
        raise OSError(f"{unfinished / TENSORS}: {error}") from error
    with open(unfinished / TENSORS, "rb") as file:
        os.fsync(file.fileno())
    write_atomically(unfinished / STATE, json.dumps(tree))
    sums = {name: _checksum(unfinished / name) for name in (TENSORS, STATE)}
    write_atomically(unfinished / CHECKSUMS, json.dumps(sums))
    os.replace(unfinished, final)
    sync_folder(folder)
    for old in earlier[: len(earlier) + 1 - KEPT]:
        shutil.rmtree(old)
    return final


def load_latest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest checkpoint that is whole.

    Parameters
    ----------
    folder : Path
    warn : callable
        Is told of each damaged checkpoint that was passed over.

    Returns
    -------
    dict or None
        What `save` was given, tensors on the CPU; None where there is no checkpoint at all.

    Raises
    ------
    CheckpointError
        If there are checkpoints and all are damaged.
    OSError
        If one cannot be read: it may be whole.
    """
    found = _numbered(folder)
    for place, one in enumerate(reversed(found)):
        if damage := _damage(one):
            if place == len(found) - 1:
                raise CheckpointError(
                    f"checkpoint {one} is damaged ({damage}), and there is no whole one before it; start the run anew "
                    "with --overwrite"
                )
            warn(f"checkpoint {one} is damaged ({damage}); the one before it is used")
            continue
        tree = json.loads((one / STATE).read_text(encoding="utf-8"))
        return _with_tensors(tree, load_file(one / TENSORS))
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints: the run is finished."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir() and path.name.isdigit())


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if sums[name] != _checksum(checkpoint / name):
                return f"{name} does not have its checksum"
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        return f"{CHECKSUMS} or a file named in it cannot be read: {error}"
    return None


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor], memory: set[int]) -> Any:
    """JSON for a state; its tensors go to ``tensors`` under the names that stand in their place."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in memory:  # tied weights: the file holds every name on its own
            tensor = tensor.clone()
        memory.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since JSON would turn a key that is a number into a string
        pairs = [[key, _without_tensors(entry, f"{name}/{key}", tensors, memory)] for key, entry in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        entries = [_without_tensors(entry, f"{name}/{i}", tensors, memory) for i, entry in enumerate(value)]
        return {"tuple": entries} if isinstance(value, tuple) else entries
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _with_tensors(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_with_tensors(entry, tensors) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_with_tensors(entry, tensors) for entry in content)
    return {key: _with_tensors(entry, tensors) for key, entry in content}
