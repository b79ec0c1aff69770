"""Values that users give, in the type that is expected of them."""

from __future__ import annotations

import math
import types
import typing
from typing import Any


def typed(value: Any, kind: Any, subject: str, purpose: str = "") -> Any:
    """A value in the type of its annotation: a whole number may stand for a float, a list for a tuple.

    Parameters
    ----------
    value
        As it was given.
    kind : type or type hint
    subject : str
        What the value is of, with the verb before it: ``length is``.
    purpose : str
        What the error ends with.

    Raises
    ------
    ValueError
        If it is of another type, or a number that is not finite.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        if value is None and types.NoneType not in (kind, *typing.get_args(kind)):  # which jsonargparse takes anywhere
            raise ArgumentError(None, "it is null")
        parsed = parser.parse_object({"value": value}).value
    except ArgumentError as error:
        expected = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
        raise ValueError(f"{subject} {value!r}, expected {expected.replace('typing.', '')}{purpose}") from error
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise ValueError(f"{subject} {value!r}, expected a finite number{purpose}")
    return parsed
