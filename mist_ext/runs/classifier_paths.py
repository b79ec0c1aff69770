"""Where a run keeps its trained classifiers, and how one is found."""

from __future__ import annotations

import re
from pathlib import Path

FILE = "classifier-seed{seed}.safetensors"
OF_TASK = "classifier-seed{seed}-task{task:03}.safetensors"


def name(seed: int, task: int | None) -> str:
    """Return a classifier's file name: of all tasks, or of those up to one, counted from 1."""
    return (FILE if task is None else OF_TASK).format(seed=seed, task=task)


def found(run: Path, seed: int | None, task: int | None) -> Path:
    """Return the file of a classifier in the folder of an experiment, or of a run that has one only.

    Parameters
    ----------
    run : Path
    seed : int or None
        None for the first seed that has one.
    task : int or None
        None for all tasks.

    Raises
    ------
    FileNotFoundError
        If there is none, or several experiments have one; the message lists them.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder; give the folder of a run, or of one of its experiments")
    number = r"(\d+)" if seed is None else f"({seed})"
    pattern = re.compile((FILE if task is None else OF_TASK).format(seed=number, task=task or 0))
    own = {int(match[1]): path for path in run.glob("classifier-*") if (match := pattern.fullmatch(path.name))}
    experiments = [path for path in sorted(run.glob("*/classifier-*")) if pattern.fullmatch(path.name)]
    if own:
        return own[min(own)]
    if not experiments:
        wanted = "no trained classifier" if seed is None else f"no trained classifier of seed {seed}"
        how = "runs keep them with --save first or --save all, once finished"
        if task is not None:
            wanted += f" of task {task}"
            how = "runs with --deltas keep one after every task; that of the last task is there without a number"
        raise FileNotFoundError(f"{wanted} in {run}; {how}{_others(run)}")
    folders = sorted({path.parent for path in experiments})
    if len(folders) == 1:
        return found(folders[0], seed, task)
    listed = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"{run} has several trained classifiers; give the folder of one: {listed}")


def _others(run: Path) -> str:
    """Return in words which classifiers are there, the latest first; nothing if there is none."""
    paths = (path.relative_to(run) for path in (*run.glob("classifier-*"), *run.glob("*/classifier-*")))
    names = sorted(map(str, paths), reverse=True)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    taken = " (--task N takes one of task N)" if any("-task" in each for each in names) else ""
    return f"; there are {', '.join(names[:3])}{more}{taken}" if names else ""
