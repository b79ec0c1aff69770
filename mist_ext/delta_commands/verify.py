"""``mist delta verify``: whether deltas are a chain, and of which base."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from mist_ext.delta_commands import files
from mist_ext.system.names import say


def verify(given: Sequence[str], base: str | None, console: Console, *, backbone: str | None, seed: int | None) -> int:
    """Print whether each delta begins where the one before it ends, and the first at a base.

    Parameters
    ----------
    given : sequence of str
        As `files.deltas` reads them, with ``seed``.
    base : str or None
        As `files.checkpoint` reads it, with ``backbone``.
    console : Console
    backbone : str or None
    seed : int or None

    Returns
    -------
    int
        The exit status: 1 if something is wrong.

    Raises
    ------
    ValueError, OSError
        If a file cannot be read, or is no delta.
    """
    files.check_backbone(base, backbone)
    deltas = files.deltas(given, seed)
    tensors = None if base is None else files.checkpoint(base, backbone)
    wrong, before = 0, None
    for name, delta in deltas.items():
        problem = ""
        if tensors is not None:
            try:
                delta.verify(tensors)
                delta.apply_(tensors)
                if delta.result_digest:
                    delta.verify(tensors, applied=True)
            except ValueError as error:
                problem = str(error)
        elif before == "":
            problem = "the delta before it, as one that was merged, does not know where it leads; give --base"
        elif before is not None and delta.base_digest != before:
            problem = f"its base is {delta.base_digest}, but the delta before it leads to {before}"
        before = delta.result_digest
        say(console, f"{'problem' if problem else 'good'}: {name}{f': {problem}' if problem else ''}")
        if problem:
            wrong += 1
            if tensors is not None:
                break  # the weights that the next one would be compared with are not known
    kind = "the base and every result have their digests" if base else "each delta begins where the one before it ends"
    say(console, f"result: {wrong} of {len(deltas)} deltas do not fit" if wrong else f"result: {kind}")
    return 1 if wrong else 0
