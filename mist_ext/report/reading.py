"""Finds and reads the `results.json` files of run folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mist_ext.report.experiments import Experiment
from mist_ext.report.parsing import ResultsError, parse_experiment
from mist_ext.system import bounded_files

FILE_NAME = "results.json"
GRID = "grid.yaml"  # in a sweep's folder: what it was begun with
MOST_BYTES = 2**28

_GIVE = "give the folder that a run wrote, or one of its experiments' folders"  # what to do, at the end of two messages


def of_sweep(folders: Sequence[str | Path]) -> bool:
    """Return whether folders are those of a sweep or its parts, and not of runs.

    Raises
    ------
    ResultsError
        If some are and some are not: a sweep's table has no place for other runs.
    """
    sweeps = [folder for folder in folders if (Path(folder) / GRID).is_file()]
    others = [folder for folder in folders if folder not in sweeps]
    if sweeps and others:
        raise ResultsError(
            f"{sweeps[0]} is the folder of a sweep, and {others[0]} is not; report the sweep by itself, or give the "
            "folders of its runs, which are in it"
        )
    return bool(sweeps)


def read_experiments(folders: Iterable[str | Path], without: Callable[[str], None] | None = None) -> list[Experiment]:
    """Read the results of any number of run folders.

    Parameters
    ----------
    folders : iterable of path-like
        Each is the folder of one experiment, which holds `results.json`, or an output folder, which holds experiments'
        folders.
    without : callable, optional
        Is told of every folder that has no results, why, and what to do; the others are read. By default such a folder
        is an error.

    Returns
    -------
    list of Experiment
        Each file once, in the order given, the experiments of an output folder by name.

    Raises
    ------
    ResultsError
        If there is no such folder, or it has no results, or a file is damaged, of another schema, or something else
        altogether.
    """
    files: dict[Path, Path] = {}  # by absolute path: keeps the order and drops what was given twice
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ResultsError(f"{folder} is no folder; {_GIVE}")
        own = folder / FILE_NAME
        found = [own] if own.is_file() else sorted(folder.glob(f"*/{FILE_NAME}"))
        if not found:
            if without is None:
                raise ResultsError(_why_none(folder))
            without(_why_none(folder))
        for file in found:
            files.setdefault(file.resolve(), file)
    return [_read_file(file) for file in files.values()]


def _why_none(folder: Path) -> str:
    """Say why a folder has no results, and what to do."""
    from mist_ext.results.manifest import CONFIG

    if (folder / CONFIG).is_file():
        return (
            f"no {FILE_NAME} in {folder}: a run was begun there and has finished no task yet; wait for its "
            f"first, or go on with it if it was interrupted: mist run --resume {folder}"
        )
    deeper = sorted({file.parent.parent for file in folder.glob(f"*/*/{FILE_NAME}")})
    if deeper:
        more = f" and {len(deeper) - 1} more" if len(deeper) > 1 else ""
        return f"no {FILE_NAME} in {folder} nor directly below it, but in {deeper[0]}{more}; give those folders"
    return f"no {FILE_NAME} in {folder} nor in a folder directly below it: it is not of a run; {_GIVE}"


def _read_file(file: Path) -> Experiment:
    try:
        content = bounded_files.read_bytes(file, MOST_BYTES)
    except ValueError as error:
        raise ResultsError(f"{error}; leave it out") from error
    return parse_experiment(content, str(file))
