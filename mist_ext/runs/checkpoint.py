"""A run's state on the disk: written whole or not at all, checked when it is read, the one before it kept.

Each checkpoint is a folder with a number for its name: ``tensors.safetensors``, ``state.json``, ``checksums.json`` and,
where tensors are sharded (FSDP2) or each rank has sums of its own, ``shards``, which every rank writes to. Nothing in
it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mist_ext.distributed import agreement, ranks
from mist_ext.distributed.shard import Shard, is_sharded
from mist_ext.distributed.shard_files import ShardReader, TensorOnDisk, write
from mist_ext.runs.checkpoint_state import Dict, described, restored
from mist_ext.system.bounded_files import opened, read_json, utf8_path
from mist_ext.system.files import sync_folder, write_atomically

MOST_STATE_BYTES = 2**28
KEPT = 2  # the newest one, and the one before it in case that is damaged
UNFINISHED = "." + "[0-9]" * 6 + "*.unfinished"
TENSORS, STATE, CHECKSUMS, SHARDS = "tensors.safetensors", "state.json", "checksums.json", "shards"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it and what to do."""


def save(folder: Path, state: dict[str, Any]) -> Path | None:
    """Write a checkpoint beside the earlier ones, then remove all but the last two.

    Where several ranks work together, all call this; rank 0 writes, and every rank its parts of sharded tensors.

    Parameters
    ----------
    folder : Path
        Holds the checkpoints; made if it does not exist. All ranks must see it where they have parts to write.
    state : dict
        Nested dicts, lists and tuples of tensors, numbers, strings and None.

    Returns
    -------
    Path or None
        The checkpoint's own folder; None where this rank had nothing to do.

    Raises
    ------
    OSError
        If it cannot be written; the earlier checkpoints are untouched then.
    TypeError
        If the state has something in it that a checkpoint cannot hold.
    """
    tensors: dict[str, Tensor | TensorOnDisk] = {}
    tree = described(state, tensors)
    parts = {name: part for name, tensor in tensors.items() if (part := _part(name, tensor)) is not None}
    own = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor) and name not in parts}
    if not parts:
        return _finish(_begin(folder), tree, own) if ranks.is_first() else None
    try:
        unfinished = agreement.on_first(lambda: _begin(folder))
        agreement.everywhere(lambda: _check_visible(unfinished))
        write(unfinished / SHARDS, parts)
        return agreement.on_first(lambda: _finish(unfinished, tree, own))
    except agreement.EveryRanksError as error:
        raise OSError(str(error)) from error


def _begin(folder: Path) -> Path:
    """Make a new folder for an unfinished checkpoint, and remove what earlier ones left."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(UNFINISHED):
        shutil.rmtree(leftover)
    earlier = _numbered(folder)
    number = int(earlier[-1].name) + 1 if earlier else 1
    # Of this process: a rank that outlives the others of an earlier start cannot write into it.
    unfinished = folder / f".{number:06}.{os.getpid()}.unfinished"
    unfinished.mkdir()
    return unfinished


def _check_visible(unfinished: Path) -> None:
    if not unfinished.is_dir():
        raise FileNotFoundError(
            f"{unfinished} is not there: each rank writes its part, so all must see the output folder"
        )


def _finish(unfinished: Path, tree: Dict, tensors: dict[str, Tensor]) -> Path:
    """Write what all ranks share, then give the folder its name and remove what is too old."""
    try:
        save_file(_in_memory(tensors), unfinished / TENSORS)
    except SafetensorError as error:  # a full disk, for one
        shutil.rmtree(unfinished)
        raise OSError(f"{unfinished / TENSORS}: {error}") from error
    with open(unfinished / TENSORS, "rb") as file:
        os.fsync(file.fileno())
    write_atomically(unfinished / STATE, msgspec.json.encode(tree))
    shards = sorted(path.name for path in (unfinished / SHARDS).glob("*"))
    sums = {name: _checksum(unfinished / name) for name in (TENSORS, STATE, *(f"{SHARDS}/{name}" for name in shards))}
    write_atomically(unfinished / CHECKSUMS, msgspec.json.encode(sums))
    if shards:
        sync_folder(unfinished / SHARDS)
    folder = unfinished.parent
    final = folder / unfinished.name.split(".")[1]
    earlier = _numbered(folder)
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
        What `save` was given, tensors on the CPU, and `TensorOnDisk` in place of sharded ones; None where there is no
        checkpoint at all.

    Raises
    ------
    CheckpointError
        If there are checkpoints and all are damaged.
    OSError
        If one cannot be read: it may be whole.
    """
    found = _numbered(folder)
    for place, one in enumerate(reversed(found)):
        try:
            return _read(one)
        except (ValueError, FileNotFoundError) as damage:
            if place == len(found) - 1:
                raise CheckpointError(
                    f"checkpoint {one} is damaged ({damage}), and there is no whole one before it; start the run anew "
                    "with --overwrite"
                ) from damage
            warn(f"checkpoint {one} is damaged ({damage}); the one before it is used")
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints, since the run is finished; what else lies there stays."""
    for path in (*_numbered(folder), *folder.glob(UNFINISHED)):
        shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint, damaged or not; None without any."""
    return next(reversed(_numbered(folder)), None)


def check(state: dict[str, Any]) -> None:
    """Raise TypeError, with its name, if a state has something in it that a checkpoint cannot hold."""
    described(state, {})


def _numbered(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("[0-9]" * 6 + "*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _read(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's state; ValueError or FileNotFoundError if it is incomplete or `save` did not write it."""
    shards = sorted(path.name for path in (checkpoint / SHARDS).glob("*"))
    names = {TENSORS, STATE, *(f"{SHARDS}/{name}" for name in shards)}
    sums = read_json(checkpoint / CHECKSUMS, dict[str, str])
    if odd := sorted(sums.keys() ^ names):
        raise ValueError(f"{CHECKSUMS} and the folder do not have the same files: {odd[0]!r} is in one alone")
    for name in sorted(names):
        if sums[name] != _checksum(checkpoint / name):
            raise ValueError(f"{name} does not have its checksum")
    tree = read_json(checkpoint / STATE, Dict, MOST_STATE_BYTES)
    try:
        with utf8_path(checkpoint / TENSORS) as name:
            tensors = load_file(name)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS} cannot be read: {error}") from error
    return restored(tree, tensors, ShardReader(checkpoint / SHARDS) if shards else None)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _part(name: str, tensor: Tensor | TensorOnDisk) -> Shard | None:
    """Return this rank's part of a tensor that is split over the ranks, None for any other tensor."""
    if isinstance(tensor, TensorOnDisk):  # of the checkpoint before: in equal parts
        bounds = [tensor.total * rank // ranks.size() for rank in (ranks.rank(), ranks.rank() + 1)]
        return Shard(tensor[bounds[0] : bounds[1]], bounds[0], tensor.total)
    if isinstance(tensor, Shard):
        return tensor
    return Shard.of(name, tensor) if is_sharded(tensor) else None


def _in_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, each with memory of its own."""
    memory: set[int] = set()
    own = {}
    for name, given in tensors.items():
        tensor = given.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in memory:  # tied weights: the file holds every name on its own
            tensor = tensor.clone()
        memory.add(tensor.untyped_storage().data_ptr())
        own[name] = tensor
    return own
