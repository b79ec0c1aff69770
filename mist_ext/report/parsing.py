"""Makes an experiment of the content of a `results.json`, and says what is wrong with one that it cannot read."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs

from mist_ext.report.experiments import Experiment
from mist_ext.results.record import SCHEMA, ExperimentRecord
from mist_ext.system.bounded_files import decode_json
from mist_ext.system.names import quoted

REPEAT = "repeat that run or leave it out"


class ResultsError(ValueError):
    """A `results.json` that is missing, damaged, or not one of this version."""


class _Version(msgspec.Struct):
    schema: Any


def parse_experiment(result: Any, source: str) -> Experiment:
    """Check the content of a `results.json` and make an experiment of it.

    Parameters
    ----------
    result : bytes or dict
        The content.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ResultsError
        If it is no JSON, of another schema, or an entry is missing, of another type, out of range or contradicted by
        others.
    """
    content = result if isinstance(result, bytes) else msgspec.json.encode(result)
    try:
        schema = decode_json(content, _Version, source).schema
    except ValueError as error:
        if isinstance(error.__cause__, msgspec.ValidationError):
            raise ResultsError(f"{source} holds no results of a run: it has no entry 'schema'; leave it out") from error
        raise ResultsError(f"{error}; {REPEAT}") from error
    if type(schema) is not int or schema != SCHEMA:  # True equals 1
        raise ResultsError(
            f"{source} has schema {quoted(schema)}, this version reads schema {SCHEMA}; "
            "report it with the version that wrote it"
        )
    try:
        record = decode_json(content, ExperimentRecord, source)
    except ValueError as error:
        raise ResultsError(f"{error}; {REPEAT}") from error
    try:
        record.check_summary()
    except ValueError as error:
        raise ResultsError(f"{source} contradicts itself: {error}; {REPEAT}") from error
    return Experiment(**structs.asdict(record), source=source)
