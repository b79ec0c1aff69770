"""Makes a cell of the content of a `results.json`, and says what is wrong with one that it cannot read."""

from __future__ import annotations

from typing import Any

from mist_ext.report.cells import Cell, Run
from mist_ext.report.entries import ResultsError, check_expected, check_task, get, numbers

SCHEMA = 1


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
    config = get(result, "config", dict, source)
    for part in ("data", "backbone", "tuner", "method"):
        get(get(config, part, dict, f"{source}: config"), "name", str, f"{source}: config.{part}")
    check_expected(config, f"{source}: config")
    runs = [_parse_run(run, f"{source}: runs[{place}]") for place, run in enumerate(get(result, "runs", list, source))]
    environment = result.get("environment")
    return Cell(
        source=source,
        config=config,
        runs=[run for run in runs if run.seen],
        gaps=_gaps(config, runs, "summary" in result),
        environment=environment if isinstance(environment, dict) else {},
    )


def _parse_run(record: Any, where: str) -> Run:
    tasks = get(record, "tasks", list, where)
    seen, matrix, classes = [], [], []
    for number, task in enumerate(tasks):
        place = f"{where}.tasks[{number}]"
        seen.append(float(get(task, "accuracy_seen", (int, float), place)))
        row = get(task, "accuracy_per_task", list, place)
        numbers(row, number + 1, f"{place}.accuracy_per_task", "one per task so far")
        matrix.append([float(value) for value in row])
        classes.append(tuple(get(task, "classes", list, place)))
        check_task(task, sum(map(len, classes)), place)
    return Run(get(record, "seed", int, where), tuple(classes), seen, matrix, tasks)


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
