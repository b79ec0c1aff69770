"""Reads `results.json` files and says what is wrong with those that it cannot read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mist_ext.report.cells import Cell, Run

SCHEMA = 1
FILE_NAME = "results.json"

# What to do, at the end of several messages.
_GIVE = "give the folder that a run wrote, or one of its cells' folders"
_REPEAT = "repeat that run or leave it out"


class ResultsError(ValueError):
    """A `results.json` that is missing, damaged, or not one of this version."""


def read_cells(folders: Iterable[str | Path]) -> list[Cell]:
    """Read the results of any number of run folders.

    Parameters
    ----------
    folders : iterable of path-like
        Each is the folder of one cell, which holds `results.json`, or an output folder, which holds cells'
        folders.

    Returns
    -------
    list of Cell
        Each file once, in the order given, the cells of an output folder by name.

    Raises
    ------
    ResultsError
        If a folder has no results, or a file is damaged, of another schema, or something else altogether.
    """
    files: dict[Path, Path] = {}  # by absolute path: keeps the order and drops what was given twice
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ResultsError(f"{folder} is no folder; {_GIVE}")
        own = folder / FILE_NAME
        found = [own] if own.is_file() else sorted(folder.glob(f"*/{FILE_NAME}"))
        if not found:
            raise ResultsError(f"no {FILE_NAME} in {folder} nor in a folder directly below it; {_GIVE}")
        for file in found:
            files.setdefault(file.resolve(), file)
    return [_read_file(file) for file in files.values()]


def _read_file(file: Path) -> Cell:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{file} is no valid JSON ({error}): it is damaged; {_REPEAT}") from error
    return parse_cell(result, str(file))


def parse_cell(result: Any, source: str) -> Cell:
    """Check the content of a `results.json` and make a cell of it.

    Parameters
    ----------
    result : dict
        The content.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ResultsError
        If it is of another schema, or an entry is missing or of another type.
    """
    if not isinstance(result, dict) or "schema" not in result:
        raise ResultsError(f"{source} holds no results of a run: it has no entry 'schema'; leave it out")
    if result["schema"] != SCHEMA:
        raise ResultsError(
            f"{source} has schema {result['schema']!r}, this version reads schema {SCHEMA}; "
            "report it with the version that wrote it"
        )
    config = _get(result, "config", dict, source)
    for part in ("data", "backbone", "tuner", "method"):
        _get(_get(config, part, dict, f"{source}: config"), "name", str, f"{source}: config.{part}")
    runs = [_parse_run(run, f"{source}: runs[{place}]") for place, run in enumerate(_get(result, "runs", list, source))]
    return Cell(source, config, [run for run in runs if run.seen], _gaps(config, runs, "summary" in result))


def _parse_run(record: Any, where: str) -> Run:
    tasks = _get(record, "tasks", list, where)
    seen, matrix, classes = [], [], []
    for number, task in enumerate(tasks):
        place = f"{where}.tasks[{number}]"
        seen.append(float(_get(task, "accuracy_seen", (int, float), place)))
        row = _get(task, "accuracy_per_task", list, place)
        if len(row) != number + 1 or not all(isinstance(value, (int, float)) for value in row):
            raise ResultsError(
                f"{place}.accuracy_per_task is {row!r}, expected {number + 1} numbers: one per task so far; "
                f"the file is damaged; {_REPEAT}"
            )
        matrix.append([float(value) for value in row])
        classes.append(tuple(_get(task, "classes", list, place)))
    return Run(_get(record, "seed", int, where), tuple(classes), seen, matrix, tasks)


def _get(mapping: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ResultsError(
            f"{where}: the entry {key!r} is {value!r}, expected {names}; the file is damaged or not of a run; {_REPEAT}"
        )
    return value


def _gaps(config: dict[str, Any], runs: list[Run], finished: bool) -> list[str]:
    configured = config["data"].get("tasks")
    longest = max((len(run.seen) for run in runs), default=0)
    expected = max(longest, configured if isinstance(configured, int) else 0)
    gaps = [f"seed {run.seed} has {len(run.seen)} of {expected} tasks" for run in runs if len(run.seen) < expected]
    seeds = config.get("seeds")
    present = {run.seed for run in runs}
    missing = [str(seed) for seed in seeds if seed not in present] if isinstance(seeds, list) else []
    if missing:
        gaps.append(f"seed{'s' if len(missing) > 1 else ''} {', '.join(missing)} not begun")
    if not gaps and not finished:
        # The last run may have lacked tasks that nothing else in the file tells of.
        gaps.append("the run was interrupted before its summary")
    return gaps
