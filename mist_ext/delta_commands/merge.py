"""``mist delta merge``: several tasks' deltas in one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from mist_ext.delta_commands import files
from mist_ext.deltas import TaskDelta
from mist_ext.deltas.chains import compose, rebase
from mist_ext.deltas.merging import merge as merged_delta
from mist_ext.runs import merged_evaluation
from mist_ext.system.names import say


def merge(
    given: Sequence[str],
    out: str,
    console: Console,
    *,
    method: str,
    weights: Sequence[float] | None,
    density: float | None,
    lambda_: float | None,
    seed: int | None,
    chain: bool,
    leave_out: Sequence[int],
    seed_of_run: int | None,
    evaluate: str | None,
    overwrite: bool,
) -> TaskDelta:
    """Write the merged delta, and print what it recognises where that is asked for.

    Parameters
    ----------
    given : sequence of str
        As `files.deltas` reads them, with ``seed_of_run``.
    out : str
    console : Console
    method, weights, density, lambda_, seed
        As for `mist_ext.deltas.merging.merge`; or the method ``"compose"``, which joins a chain bit for bit.
    chain : bool
        Whether the deltas are a chain, of which each is moved to the first one's base.
    leave_out : sequence of int
        The numbers of deltas, from 1, that are left out after that.
    seed_of_run : int or None
    evaluate : str or None
        The folder of a run's experiment, whose data and method test the merged backbone.
    overwrite : bool

    Raises
    ------
    ValueError, OSError
        If the deltas cannot be merged, or a file cannot be read or written, before the output is written.
    """
    path = files.check_output(out, overwrite, files.DELTA_ENDINGS)
    deltas = list(files.deltas(given, seed_of_run, path).values())
    evaluation = None if evaluate is None else merged_evaluation.of_experiment(evaluate, seed_of_run, console)
    if wrong := [number for number in leave_out if number not in range(1, len(deltas) + 1)]:
        raise ValueError(f"leave_out is {wrong[0]}, expected the number of a delta, 1 to {len(deltas)}")
    if method == "compose":
        if weights is not None or density is not None or lambda_ is not None or seed is not None or leave_out:
            raise ValueError("compose joins a chain as it is; leave --weight, --density, --lambda and the like out")
        delta = compose(deltas)
    else:
        moved = rebase(deltas) if chain else deltas
        used = [delta for number, delta in enumerate(moved, 1) if number not in leave_out]
        try:
            delta = merged_delta(used, method, weights=weights, density=density, lambda_=lambda_, seed=seed)
        except ValueError as error:
            raise ValueError(str(error).replace("rebase it first", "add --chain")) from error
    table = None if evaluation is None else evaluation.table(delta)
    delta.save(path)
    say(console, f"{len(deltas) - len(set(leave_out))} deltas merged by {method}, {delta.entries:,} entries: {out}")
    if table is not None:
        console.print(table)
    return delta
