"""Options of methods as a run is given them: ``NAME=VALUE``, or ``METHOD.NAME=VALUE`` for one of several."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from mist_ext.methods import options_of
from mist_ext.system.suggest import unknown


def options_by_method(given: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the options that each method of a run gets.

    Parameters
    ----------
    given : sequence of str
        ``epochs=2`` reaches every method that has such an option, ``l2p.length=3`` that one alone, whatever else is
        given. Values are Python's numbers, tuples, None and booleans, or else text.
    names : sequence of str
        The methods of the run.

    Raises
    ------
    ValueError
        If an option would reach no method, or one that does not have it; the nearest names are suggested. If one is
        given twice.
    """
    targets = [one.partition("=")[0] for one in given]
    for target in targets:
        if targets.count(target) > 1:
            raise ValueError(f"method_options has {target!r} twice; leave one out")
    chosen: dict[str, dict[str, Any]] = {name: {} for name in names}
    known = {name: [option for option in options_of(name) if option != "seed"] for name in names}
    for one in sorted(given, key=lambda text: "." in text.partition("=")[0]):
        target, equals, text = one.partition("=")
        if not equals:
            raise ValueError(f"method_options has {one!r}, expected NAME=VALUE or METHOD.NAME=VALUE")
        method, dot, option = target.rpartition(".")
        if dot and method not in names:
            raise unknown(f"method in {one!r}, of this run's,", method, names)
        reached = [method] if dot else [name for name in names if option in known[name]]
        if not reached or option not in known[reached[0]]:
            everything = sorted({entry for name in ([method] if dot else names) for entry in known[name]})
            raise unknown(f"option of method {method!r}" if dot else "option of this run's methods", option, everything)
        for name in reached:
            chosen[name][option] = _value(text)
    return chosen


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # as literal_eval documents
        return text
