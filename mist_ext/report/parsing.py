"""Makes an experiment of the content of a `results.json`, and says what is wrong with one that it cannot read."""

from __future__ import annotations

from typing import Any

import msgspec

from mist_ext.report.experiments import Experiment
from mist_ext.results.record import SCHEMA, ExperimentRecord
from mist_ext.system.bounded_files import decode_json

REPEAT = "repeat that run or leave it out"


class ResultsError(ValueError):
    """A `results.json` that is missing, damaged, or not one of this version."""


class _Version(msgspec.Struct):
    schema: int | float | str | None


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
        If it is no JSON, of another schema, or an entry is missing, of another type or out of range.
    """
    content = result if isinstance(result, bytes) else msgspec.json.encode(result)
    try:
        schema = decode_json(content, _Version, source).schema
    except ValueError as error:
        if isinstance(error.__cause__, msgspec.ValidationError):
            raise ResultsError(f"{source} holds no results of a run: it has no entry 'schema'; leave it out") from error
        raise ResultsError(f"{error}; {REPEAT}") from error
    if schema != SCHEMA:
        raise ResultsError(
            f"{source} has schema {schema!r}, this version reads schema {SCHEMA}; "
            "report it with the version that wrote it"
        )
    try:
        record = decode_json(content, ExperimentRecord, source)
    except ValueError as error:
        raise ResultsError(f"{error}; {REPEAT}") from error
    return Experiment(
        source=source,
        config=record.config,
        runs=[run for run in record.runs if run.tasks],
        gaps=_gaps(record),
        environment=record.environment,
    )


def _gaps(record: ExperimentRecord) -> list[str]:
    configured = record.config.data.get("tasks")
    longest = max((len(run.tasks) for run in record.runs), default=0)
    expected = max(longest, configured if isinstance(configured, int) else 0)
    short = [run for run in record.runs if len(run.tasks) < expected]
    gaps = [f"seed {run.seed} has {len(run.tasks)} of {expected} tasks" for run in short]
    present = {run.seed for run in record.runs}
    if missing := [str(seed) for seed in record.config.seeds or () if seed not in present]:
        gaps.append(f"seed{'s' if len(missing) > 1 else ''} {', '.join(missing)} not begun")
    if not gaps and record.summary is msgspec.UNSET:
        # The last run may have lacked tasks that nothing else in the file tells of.
        gaps.append("the run was interrupted before its summary")
    return gaps
