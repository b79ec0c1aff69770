"""Freeze-based methods: classifiers that learn task after task from the features of a backbone.

Each is one file. To add one, derive a class from `mist_ext.methods.method.Method` and name it in `METHODS`.
"""

from __future__ import annotations

import inspect
import pkgutil
from typing import TYPE_CHECKING

from mist_ext.plugins import plugins
from mist_ext.suggest import unknown

if TYPE_CHECKING:
    from mist_ext.methods.method import Method

# Where each is, so that naming them imports no torch.
METHODS = {
    "simplecil": "mist_ext.methods.simplecil:SimpleCIL",
    "ranpac": "mist_ext.methods.ranpac:RanPAC",
}
METHODS |= {name: where for name, where in plugins("methods").items() if name not in METHODS}


def named(name: str) -> type[Method]:
    """The class of a method; an unknown name raises ValueError with the nearest ones."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return pkgutil.resolve_name(METHODS[name])


def create(name: str, **options: object) -> Method:
    """Make a method that has learned nothing yet.

    Parameters
    ----------
    name : str
        A name in `METHODS`.
    **options
        The arguments of the method's class. A ``seed`` belongs to methods that draw random numbers, those
        with ``named(name).draws``.

    Raises
    ------
    ValueError
        If the method or an option is unknown; the nearest names are suggested.
    """
    method = named(name)
    known = [option for option in inspect.signature(method.__init__).parameters if option != "self"]
    for option in options:
        if option not in known:
            raise unknown(f"option of method {name!r}", option, known)
    return method(**options)
