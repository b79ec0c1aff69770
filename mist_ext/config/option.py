"""Options as dataclass fields that carry their explanation: one place for flags, YAML and Python."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

from mist_ext.config.typed import typed
from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

# What an option concerns, in the order in which ``mist run --help`` shows them.
GROUPS = {
    "data": "What is learned: images, classes and tasks.",
    "backbone": "The pre-trained model, and how it computes.",
    "tuner": "How tuners train the backbone on each task. An option says which of them use it, if not all do.",
    "MIST": "What the tuners mist, random, magnitude and gradient select. An option says which use it, if not all do.",
    "method": "The classifiers that learn from the backbone's features.",
    "run": "Seeds, device, and what is kept.",
    "several processes": "For a run that torchrun starts in several processes.",
}

# What is said to those who still give an option by the name that it had.
REPLACED = {
    "ranpac_width": "width is an option of the methods ranpac and ranpac_*: give --method-options width=N, or in YAML "
    "method_options: [width=N]"
}


@dataclass(frozen=True)
class About:
    """What is known of an option besides its type and default.

    Attributes
    ----------
    help : str
        The sentence that ``--help`` shows.
    group : str
        Of `GROUPS`.
    above, at_least, at_most, below : float, optional
        Bounds of a number.
    pattern : bool
        Whether it is a regular expression.
    tuners : tuple of str, optional
        Those of this package that use it; None: all of them, or none of their business.
    role : str, optional
        What it shares with the options that other tuners have in its place, such as learning rate.
    needs : tuple of str and callable, optional
        What else must be so for it to change anything: in words, and, of a run's options, whether it is.
    null : optional
        What YAML's null and Python's None stand for.
    """

    help: str
    group: str = "run"
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    pattern: bool = False
    tuners: tuple[str, ...] | None = None
    role: str = ""
    needs: tuple[str, Callable[[Any], bool]] | None = None
    null: Any = None

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError for a value that is out of bounds, or no regular expression."""
        if self.pattern:
            try:
                re.compile(value)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{name} is {quoted(value)}, which is no regular expression: {error}") from None
        if value is None:
            return
        for bound, within, words in (
            (self.above, lambda bound: value > bound, "more than {:g}"),
            (self.at_least, lambda bound: value >= bound, "{:g} or more"),
            (self.at_most, lambda bound: value <= bound, "at most {:g}"),
            (self.below, lambda bound: value < bound, "less than {:g}"),
        ):
            if bound is not None and not within(bound):
                raise ValueError(f"{name} is {quoted(value)}, expected {words.format(bound)}")


def option(default: Any, explanation: str, group: str = "run", **about: Any) -> Any:
    """Make a dataclass field with a default and everything that is known `About` it."""
    metadata = {"about": About(explanation, group, **about)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def about(of: type) -> dict[str, About]:
    """Return what is known of each option of a dataclass, by name."""
    return {field.name: field.metadata["about"] for field in dataclasses.fields(of)}


@cache
def kinds(of: type) -> dict[str, Any]:
    """Return the type of each option of a dataclass, by name."""
    return typing.get_type_hints(of)


def check_all(options: Any) -> None:
    """Raise ValueError for the first option of a dataclass that is out of bounds."""
    of: type = type(options)
    for name, what in about(of).items():
        what.check(name, getattr(options, name))


def option_value(of: type, name: str, value: Any, subject: str, purpose: str = "") -> Any:
    """Return an option's value in its type, as `typed` makes it, with the errors that `typed` raises.

    One value may stand for a list of one, and a mapping for texts of the form ``NAME=VALUE``.
    """
    kind = kinds(of)[name]
    if value is None:
        value = about(of)[name].null
    if typing.get_origin(kind) is not list:
        return typed(value, kind, subject, purpose)
    if isinstance(value, Mapping):
        value = list(_assignments(value, subject))
    several = list(value) if isinstance(value, list | tuple) else [value]
    if any("," in each for each in several if isinstance(each, str)):
        purpose += f"; several are given as --{name.replace('_', '-')} A B, or in YAML {name}: [A, B]"
    return [typed(each, typing.get_args(kind)[0], subject, purpose) for each in several]


def unknown_option(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Make the error for an option that does not exist, with the nearest ones, or with what took its place."""
    if instead := REPLACED.get(str(name).lstrip("-").replace("-", "_")):
        return ValueError(f"unknown {kind} {quoted(name)}; {instead}")
    return unknown(kind, name, known)


def read_options(path: str | os.PathLike[str], of: type) -> dict[str, Any]:
    """Read options of a dataclass from a YAML file; one without any content has none.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no YAML, of another form, or has an unknown option or a wrong value; the message names the file.
    """
    from mist_ext.system.bounded_files import read_yaml

    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is {quoted(content)}, expected options with their values, such as tuner: mist")
    for name in content:
        if name not in kinds(of):
            raise unknown_option(f"option of {path}", name, kinds(of))
    return {name: option_value(of, name, value, f"{name} of {path} is") for name, value in content.items()}


def _assignments(values: Mapping[Any, Any], subject: str, before: str = "") -> Iterator[str]:
    """Write ``{epochs: 1, l2p: {length: 3}}`` as ``epochs=1`` and ``l2p.length=3``."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{before}{name}={value}"
        elif before:
            raise ValueError(f"{subject} nested more than twice; expected NAME: VALUE, or METHOD: {{NAME: VALUE}}")
        else:
            yield from _assignments(value, subject, f"{name}.")
