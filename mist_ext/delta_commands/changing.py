"""``mist delta diff``, ``apply`` and ``undo``: from checkpoints to a delta, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mist_ext.delta_commands import files
from mist_ext.deltas import TaskDelta
from mist_ext.deltas.chains import check_chain
from mist_ext.system.names import say


def diff(
    base: str, tuned: str, out: str, console: Console, *, forward_only: bool, dense: str, overwrite: bool
) -> TaskDelta:
    """Write the delta from one checkpoint to another.

    Parameters
    ----------
    base, tuned : str
        As `files.checkpoint` reads them.
    out : str
    console : Console
    forward_only : bool
        Leave out the values before.
    dense : str
        ``"store"`` or ``"refuse"`` a tensor of which most has changed.
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If a checkpoint cannot be read, or they differ in names, shapes or dtypes, or the output cannot be written.
    """
    path = files.check_output(out, overwrite, files.DELTA_ENDINGS)
    files.check_apart(path, [Path(base), Path(tuned)])
    before, after = files.checkpoint(base), files.checkpoint(tuned)
    delta = TaskDelta.between(before, after, forward_only=forward_only, dense=dense)
    delta.save(path)
    total = sum(tensor.numel() for tensor in after.values())
    whole = sum(change.positions is None for change in delta.changes.values())
    say(
        console,
        f"{delta.entries:,} of {total:,} entries ({100 * delta.entries / max(total, 1):.2f} %) in {len(delta.changes)} "
        f"of {len(after)} tensors, {whole} of them stored whole: {path.stat().st_size:,} bytes in {out}",
    )
    return delta


def apply(
    base: str,
    given: Sequence[str],
    out: str,
    console: Console,
    *,
    backbone: str | None,
    seed: int | None,
    overwrite: bool,
) -> None:
    """Write a checkpoint with deltas applied, one after the other.

    Parameters
    ----------
    base : str
        As `files.checkpoint` reads it, with ``backbone``.
    given : sequence of str
        As `files.deltas` reads them, with ``seed``.
    out : str
    console : Console
    backbone : str or None
    seed : int or None
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If the deltas are no chain, or the checkpoint is not what one was made for, or a file cannot be read or written.
    """
    path = files.check_output(out, overwrite)
    deltas = files.deltas(given, seed, path)
    check_chain(list(deltas.values()))
    tensors = files.checkpoint(base, backbone)
    for name, delta in deltas.items():
        with files.named(name):
            delta.apply_(tensors)
    files.write_tensors(path, tensors)
    say(console, f"{len(deltas)} applied: {out}")


def undo(tuned: str, given: Sequence[str], out: str, console: Console, *, seed: int | None, overwrite: bool) -> None:
    """Write a checkpoint with deltas undone, the last one first.

    Parameters
    ----------
    tuned : str
        As `files.checkpoint` reads it.
    given : sequence of str
        As `files.deltas` reads them, with ``seed``, in the order in which they were applied.
    out : str
    console : Console
    seed : int or None
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If the deltas are no chain, or the checkpoint is not what is after one, or a file cannot be read or written.
    """
    path = files.check_output(out, overwrite)
    deltas = files.deltas(given, seed, path)
    check_chain(list(deltas.values()))
    tensors = files.checkpoint(tuned)
    for name, delta in reversed(deltas.items()):
        with files.named(name):
            delta.undo_(tensors)
    files.write_tensors(path, tensors)
    say(console, f"{len(deltas)} undone: {out}")
