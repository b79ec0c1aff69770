"""Whether a file of a report shows what it would show if it were made again."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

import mist_ext
from mist_ext.report.delta_files import first_seed
from mist_ext.report.experiments import Experiment
from mist_ext.system.bounded_files import read_bytes

_MOST_BYTES = 64 * 2**20  # of a figure or page


def of_experiment(experiment: Experiment) -> str:
    """Digest all that an experiment's figures are drawn from."""
    deltas = [(file.name, hashlib.blake2b(file.read_bytes()).hexdigest()) for file in first_seed(experiment).values()]
    return of_parts(experiment.config, experiment.runs, *deltas)


def of_parts(*parts: Any) -> str:
    """Digest plain values and records, and the code that draws."""
    digest = hashlib.blake2b(_code(), digest_size=16)
    digest.update(msgspec.json.encode(parts, order="deterministic"))
    return f"mist-{digest.hexdigest()}"


def holds(file: Path, digest: str) -> bool:
    """Return whether a file exists and contains a digest."""
    try:
        return digest.encode() in read_bytes(file, _MOST_BYTES)
    except (OSError, ValueError):
        return False


@cache
def _code() -> bytes:
    """Digest what draws: this folder's files, and the versions of the packages."""
    digest = hashlib.blake2b(f"{mist_ext.__version__} {version('matplotlib')}".encode())
    for file in sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".jinja")):
        digest.update(file.read_bytes())
    return digest.digest()
