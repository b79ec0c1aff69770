"""``mist delta export``: deltas for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mist_ext.delta_commands import files
from mist_ext.deltas import TaskDelta
from mist_ext.deltas.chains import check_chain, compose
from mist_ext.deltas.exports import indices_and_values, shira
from mist_ext.system.files import write_atomically
from mist_ext.system.names import say
from mist_ext.system.suggest import unknown

FORMS = ("state_dict", "shira", "indices")
SHIRA_FILES = ("adapter_model.safetensors", "adapter_config.json")
REST = "rest.safetensors"


def export(
    given: Sequence[str],
    out: str,
    form: str,
    base: str | None,
    console: Console,
    *,
    backbone: str | None,
    seed: int | None,
    overwrite: bool,
) -> None:
    """Write a chain of deltas in another form.

    Parameters
    ----------
    given : sequence of str
        As `files.deltas` reads them, with ``seed``; several are composed.
    out : str
        A file; of ``shira`` a folder.
    form : str
        ``state_dict``: the base with the deltas applied. ``shira``: a folder that peft loads as an adapter.
        ``indices``: positions and new values.
    base : str or None
        As `files.checkpoint` reads it, with ``backbone``; for a state dict.
    console : Console
    backbone : str or None
    seed : int or None
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If the form is unknown, or cannot hold the delta, or a file cannot be read or written.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if (base is None) != (form != "state_dict"):
        raise ValueError(
            "a state_dict needs --base, the checkpoint that the first delta was made for"
            if base is None
            else f"base is {base!r}, but {form} holds no weights of a base; leave --base out"
        )
    files.check_backbone(base, backbone)
    path = Path(out) if form == "shira" else files.check_output(out, overwrite)
    deltas = files.deltas(given, seed, path)
    if form == "shira":
        _check_folder(path, overwrite)
        _write_shira(path, compose(list(deltas.values())), console)
    elif form == "indices":
        files.write_tensors(path, indices_and_values(compose(list(deltas.values()))))
    elif base is not None:
        check_chain(list(deltas.values()))
        tensors = files.checkpoint(base, backbone)
        for name, delta in deltas.items():
            with files.named(name):
                delta.apply_(tensors)
        files.write_tensors(path, tensors)
    say(console, f"{len(deltas)} exported as {form}: {out}")


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"the output {folder} is a file; SHiRA is a folder of files")
    there = [name for name in (*SHIRA_FILES, REST) if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"the output {folder} has {there[0]} already; give another folder, or --overwrite")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"the output {folder} cannot be written: {folder.parent} is no folder; create it first")


def _write_shira(folder: Path, delta: TaskDelta, console: Console) -> None:
    tensors, config, rest = shira(delta)
    folder.mkdir(exist_ok=True)
    weights, settings = (folder / name for name in SHIRA_FILES)
    (folder / REST).unlink(missing_ok=True)  # of what is replaced
    files.write_tensors(weights, tensors)
    write_atomically(settings, json.dumps(config, indent=1) + "\n")
    if rest.changes:
        rest.save(folder / REST)
        say(
            console,
            f"{rest.entries:,} entries of {len(rest.changes)} tensors are no weights of linear layers, and SHiRA "
            f"holds nothing else: apply the delta {folder / REST} to the base before the adapter",
        )
