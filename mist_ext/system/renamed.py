"""Names that an interface had earlier: who still uses one is told the new one, by plug-ins of others as a rule."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn

# Parameters that methods were given and what does their work now.
_WITHDRAWN = {"track": "self.callbacks.progress", "pause": "self.callbacks.checkpoint_if_due"}


class Renamed:
    """The earlier name of an attribute, which stands in the class that had it; reading it raises AttributeError.

    Parameters
    ----------
    now : str
        What the attribute is called now.
    """

    def __init__(self, now: str) -> None:
        self.now = now

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__}.{self.name} is called {self.now!r} now")


def require_current_names(owner: type) -> None:
    """Raise TypeError if a class, or what it derives from in other packages, overrides this one by earlier names.

    That is an attribute that was `Renamed`, where the new name is not overridden, or a parameter that an overriding
    method is no longer given. Nothing would use the one, or hand over the other.
    """
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        (ours if base.__module__.startswith("mist_ext.") else theirs).update(vars(base))
    for old, value in ours.items():
        if isinstance(value, Renamed) and old in theirs and value.now in ours.keys() - theirs.keys():
            raise TypeError(f"{owner.__name__} defines {old!r}, which is called {value.now!r} now; rename it")
    for name, value in theirs.items():
        overrides = name in ours and not name.startswith("__") and inspect.isfunction(value)
        for parameter in inspect.signature(value).parameters if overrides else ():
            if parameter in _WITHDRAWN:
                raise TypeError(
                    f"{owner.__name__}.{name} takes {parameter!r}, which nothing hands over any more; leave it out, "
                    f"and call {_WITHDRAWN[parameter]} instead"
                )
