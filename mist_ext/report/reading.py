"""Finds and reads the `results.json` files of run folders."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mist_ext.report.cells import Cell
from mist_ext.report.entries import REPEAT, ResultsError
from mist_ext.report.parsing import parse_cell

FILE_NAME = "results.json"

_GIVE = "give the folder that a run wrote, or one of its cells' folders"  # what to do, at the end of two messages


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
        raise ResultsError(f"{file} is no valid JSON ({error}): it is damaged; {REPEAT}") from error
    return parse_cell(result, str(file))
