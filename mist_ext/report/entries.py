"""Checks of single entries of a `results.json`, those that files of earlier versions lack included."""

from __future__ import annotations

from typing import Any

REPEAT = "repeat that run or leave it out"  # what to do, at the end of several messages

_NUMBER = (int, float)


class ResultsError(ValueError):
    """A `results.json` that is missing, damaged, or not one of this version."""


def get(mapping: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """An entry that must be there and of one of the given types; a truth value is no number."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ResultsError(
            f"{where}: the entry {key!r} is {value!r}, expected {names}; the file is damaged or not of a run; {REPEAT}"
        )
    return value


def numbers(values: Any, count: int, where: str, what: str) -> None:
    """Require a list of so many numbers."""
    if not isinstance(values, list) or len(values) != count or not all(_is_number(value) for value in values):
        raise ResultsError(f"{where} is {values!r}, expected {count} numbers: {what}; the file is damaged; {REPEAT}")


def check_task(task: dict[str, Any], classes: int, where: str) -> None:
    """Check a task's optional entries: its costs, losses, warnings, ``accuracy_per_class`` and ``selection``.

    Parameters
    ----------
    task : dict
        The record.
    classes : int
        How many classes were seen so far.
    where : str
        The record's place in the file, for messages.

    Raises
    ------
    ResultsError
        If one is there and is not what it should be.
    """
    for name, kinds in (("seconds", dict), ("peak_memory_bytes", (dict, *_NUMBER))):
        cost = {} if task.get(name) is None else get(task, name, kinds, where)
        if isinstance(cost, dict):  # by phase; else the memory of the whole task, as earlier versions wrote it
            for phase in [phase for phase, value in cost.items() if value is not None]:
                get(cost, phase, _NUMBER, f"{where}.{name}")
    losses = get(task, "losses", dict, where) if task.get("losses") is not None else {}
    for phase in losses:
        means = get(losses, phase, list, f"{where}.losses")
        numbers(means, len(means), f"{where}.losses.{phase}", "the mean loss of every epoch")
    if task.get("warnings") is not None:
        get(task, "warnings", list, where)
    if (accuracies := task.get("accuracy_per_class")) is not None:
        numbers(accuracies, classes, f"{where}.accuracy_per_class", "one per class so far")
    if task.get("selection") is None:
        return
    for place, tensor in enumerate(get(task, "selection", list, where)):
        at = f"{where}.selection[{place}]"
        get(tensor, "name", str, at)
        entries, selected = get(tensor, "entries", int, at), get(tensor, "selected", int, at)
        if not 0 <= selected <= entries:
            raise ResultsError(f"{at}: {selected} of {entries} entries are selected; the file is damaged; {REPEAT}")
        for name in ("score_share", "score_selected"):
            if tensor.get(name) is not None:
                get(tensor, name, _NUMBER, at)


def check_expected(config: dict[str, Any], where: str) -> None:
    """Check a configuration's published expectation, where it has one.

    Raises
    ------
    ResultsError
        If it names no source, or a value is no number.
    """
    if config.get("expected") is None:
        return
    expected = get(config, "expected", dict, where)
    get(expected, "source", str, f"{where}.expected")
    for name in ("average_accuracy", "last_accuracy"):
        if expected.get(name) is not None:
            get(expected, name, _NUMBER, f"{where}.expected")


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)
