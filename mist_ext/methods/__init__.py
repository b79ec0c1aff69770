"""Freeze-based methods: classifiers that learn task after task from the features of a backbone.

Each is one file. To add one, derive a class from `mist_ext.methods.method.Method`, or from
`mist_ext.methods.trained.TrainedMethod` if it trains on images, and name it in `METHODS`.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

from mist_ext.config.typed import typed
from mist_ext.registry import METHODS as METHODS
from mist_ext.system.suggest import unknown

if TYPE_CHECKING:
    from mist_ext.methods.method import Method


def named(name: str) -> type[Method]:
    """Return the class of a method; ValueError as `Registry.resolve` raises it."""
    from mist_ext.methods.method import Method

    found: type[Method] = METHODS.resolve(name, Method)
    return found


def options_of(name: str) -> list[str]:
    """Return the arguments of a method's class; an unknown name raises ValueError with the nearest ones."""
    return [option for option in inspect.signature(named(name).__init__).parameters if option != "self"]


def create(name: str, **options: object) -> Method:
    """Make a method that has learned nothing yet.

    Parameters
    ----------
    name : str
        A name in `METHODS`.
    **options
        The arguments of the method's class. A ``seed`` belongs to methods that draw random numbers, those
        with ``named(name).seeded``.

    Raises
    ------
    ValueError
        If the method or an option is unknown; the nearest names are suggested. If an option's value is of another type
        than its annotation, where that is made of Python's plain types.
    """
    known = options_of(name)
    for option in options:
        if option not in known:
            raise unknown(f"option of method {name!r}", option, known)
    try:
        hints = typing.get_type_hints(named(name).__init__)
    except NameError:  # names that a method of yours imports for type checkers alone
        hints = {}
    kinds = {option: kind for option, kind in hints.items() if _plain(kind)}
    given = {
        option: typed(value, kinds.get(option, Any), f"{option} of method {name!r} is")
        for option, value in options.items()
    }
    return named(name)(**given)


def _plain(kind: Any) -> bool:
    parts = [part for part in typing.get_args(kind) if part is not ...]
    if typing.get_origin(kind) in (list, tuple, types.UnionType, typing.Union):
        return all(map(_plain, parts))
    return kind in (int, float, bool, str, types.NoneType)
