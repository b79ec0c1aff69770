"""Options as dataclass fields that carry their explanation: one place for flags, YAML and Python."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cache
from typing import Any

from mist_ext.names import quoted
from mist_ext.suggest import unknown
from mist_ext.typed import typed

# What an option concerns, in the order in which ``mist run --help`` shows them.
GROUPS = {
    "data": "What is learned: images, classes and tasks.",
    "backbone": "The pre-trained model, and how it computes.",
    "tuner": "How the backbone is adapted to each task.",
    "MIST": "What is selected and kept, by the sparse tuners: mist, random, magnitude, gradient.",
    "method": "The classifiers that learn from the backbone's features.",
    "run": "Seeds, device, and what is kept.",
    "several processes": "For a run that torchrun starts in several processes.",
}


def option(default: Any, explanation: str, group: str = "run", null: str | None = None) -> Any:
    """A dataclass field with a default, the sentence that ``--help`` shows for it, and which of `GROUPS` it is in.

    ``null`` is the word that YAML's null and Python's None stand for.
    """
    metadata = {"help": explanation, "group": group, "null": null}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def kinds(of: type) -> dict[str, Any]:
    """The type of each option of a dataclass."""
    return typing.get_type_hints(of)


def option_value(of: type, name: str, value: Any, subject: str, purpose: str = "") -> Any:
    """An option's value in its type, as `mist_ext.typed.typed` makes it; its errors, with their subject and purpose.

    One value may stand for a list of one, and a mapping for texts of the form ``NAME=VALUE``.
    """
    kind = kinds(of)[name]
    if value is None:
        value = next(field.metadata["null"] for field in dataclasses.fields(of) if field.name == name)
    if typing.get_origin(kind) is not list:
        return typed(value, kind, subject, purpose)
    if isinstance(value, Mapping):
        value = list(_assignments(value, subject))
    several = list(value) if isinstance(value, list | tuple) else [value]
    return [typed(each, typing.get_args(kind)[0], subject, purpose) for each in several]


def read_options(path: str | os.PathLike[str], of: type) -> dict[str, Any]:
    """Read options of a dataclass from a YAML file; one without any content has none.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no YAML, of another form, or has an unknown option or a wrong value; the message names the file.
    """
    from mist_ext.bounded_files import read_yaml

    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} is {quoted(content)}, expected options with their values, such as tuner: mist")
    for name in content:
        if name not in kinds(of):
            raise unknown(f"option of {path}", name, kinds(of))
    return {name: option_value(of, name, value, f"{name} of {path} is") for name, value in content.items()}


def _assignments(values: Mapping[Any, Any], subject: str, before: str = "") -> Iterator[str]:
    """``{epochs: 1, l2p: {length: 3}}`` as ``epochs=1`` and ``l2p.length=3``."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{before}{name}={value}"
        elif before:
            raise ValueError(f"{subject} nested more than twice; expected NAME: VALUE, or METHOD: {{NAME: VALUE}}")
        else:
            yield from _assignments(value, subject, f"{name}.")
