"""The names of the files that a run leaves its tasks' deltas in."""

from __future__ import annotations

import re
from pathlib import Path

FILE = "delta-seed{seed}-task{task:03}.safetensors"
PATTERN = re.compile(r"delta-seed(\d{1,10})-task(\d{3,5})\.safetensors")


def of_seeds(folder: Path) -> dict[int, dict[int, Path]]:
    """Return the files of a folder by seed and by the task's number from 1, both ascending as numbers."""
    found: dict[int, dict[int, Path]] = {}
    named = [(match, path) for path in folder.glob("delta-seed*") if (match := PATTERN.fullmatch(path.name))]
    for seed, task, path in sorted((int(match[1]), int(match[2]), path) for match, path in named):
        found.setdefault(seed, {})[task] = path
    return found
