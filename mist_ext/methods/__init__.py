"""Freeze-based methods: classifiers that learn task after task from the features of a backbone.

Each is one file. To add one, derive a class from `Method` and name it in `METHODS`.
"""

from __future__ import annotations

import inspect

from mist_ext.methods.method import Method
from mist_ext.methods.ranpac import RanPAC
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.suggest import unknown

METHODS: dict[str, type[Method]] = {"simplecil": SimpleCIL, "ranpac": RanPAC}

__all__ = ["METHODS", "Method", "RanPAC", "SimpleCIL", "create"]


def create(name: str, **options: object) -> Method:
    """Make a method that has learned nothing yet.

    Parameters
    ----------
    name : str
        A name in `METHODS`.
    **options
        The arguments of the method's class. A ``seed`` belongs to methods that draw random numbers, those
        with ``METHODS[name].draws``.

    Raises
    ------
    ValueError
        If the method or an option is unknown; the nearest names are suggested.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    known = [option for option in inspect.signature(METHODS[name].__init__).parameters if option != "self"]
    for option in options:
        if option not in known:
            raise unknown(f"option of method {name!r}", option, known)
    return METHODS[name](**options)
