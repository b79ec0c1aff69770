"""Values that users give, in the type that is expected of them."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", types.NoneType: "null"}
_NOTHING = object()
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)  # as YAML and Python write it
# The largest number of each type, either way: what int64 and float32 can hold.
MOST: dict[type, float] = {bool: 1, int: 2**63 - 1, float: 3e38}


def typed(value: Any, kind: Any, subject: str, purpose: str = "") -> Any:
    """Return a value in the type of its annotation, whether it comes from Python, from a file or, as text, from a flag.

    A whole number may stand for a float, a list for a tuple, and text for what it says: ``"1e-3"`` for 0.001.

    Parameters
    ----------
    value
        As it was given.
    kind : type or type hint
        Of Python's plain types, lists, tuples, unions and literals.
    subject : str
        What the value is of, with the verb before it: ``length is``.
    purpose : str
        What the error ends with.

    Raises
    ------
    ValueError
        If it is of another type, none of a literal's values, or a number that is not finite or larger than anything
        that computes with it can hold.
    """
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise unknown(subject.rpartition(" ")[0], value, typing.get_args(kind))
        return value
    found = _converted(value, kind)
    if found is _NOTHING or not all(math.isfinite(number) for number in _numbers(found) if isinstance(number, float)):
        expected = words(kind) if found is _NOTHING else words(float)
        raise ValueError(f"{subject} {quoted(value)}, expected {expected}{purpose}")
    for number in _numbers(found):
        if abs(number) > (most := MOST[type(number)]):
            raise ValueError(f"{subject} {quoted(value)}, expected at most {most:g}{purpose}")
    return found


def words(kind: Any) -> str:
    """Say a type in plain words: ``a whole number or null``."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(map(words, parts))
    if typing.get_origin(kind) in (list, tuple):
        inner = dict.fromkeys(words(part) for part in parts if part is not ...)
        return f"a list, each {' or '.join(inner)}"
    return _WORDS.get(kind, str(kind))


def _converted(value: Any, kind: Any) -> Any:
    """Return the value in a type, of a union in the first that takes it as it is; `_NOTHING` if none does."""
    import msgspec

    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    for strict in (True, False) if isinstance(value, str | list | tuple) else (True,):  # text may stand for a number
        for part in typing.get_args(kind) if union else (kind,):
            if part is float and not strict and isinstance(value, str) and _NUMBER.fullmatch(value):
                return float(value)  # JSON, whose numbers msgspec reads, has no .5
            try:
                return msgspec.convert(value, part, strict=strict)
            except (msgspec.ValidationError, RecursionError):
                continue
    return _NOTHING


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
