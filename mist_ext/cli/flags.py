"""Flags made of the options of a run, and the options that a command line names."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from typing import Any, Literal

from mist_ext.config.option import kinds
from mist_ext.config.tuning import SPARSE, TRAINING


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a run that a command line names, as text, and none that it does not."""
    from mist_ext.config import Config

    texts = {name: getattr(options, name, None) for name in kinds(Config)}
    return {
        name: None if text == "null" and type(None) in typing.get_args(kinds(Config)[name]) else text
        for name, text in texts.items()
        if text is not None
    }


# The tuners that use the options of a group, where an option does not name its own.
USUAL = {"tuner": TRAINING, "MIST": SPARSE}


def add_option(parser: Any, field: dataclasses.Field[Any], default: Any = None) -> None:
    """Add the flag of an option, whose value is None where it is not given, else text.

    The help shows a command's own default, if there is one, in place of a run's.
    """
    from mist_ext.config import Config

    kind = kinds(Config)[field.name]
    flag, what = "--" + field.name.replace("_", "-"), field.metadata["about"]
    several = typing.get_origin(kind) is list
    default = getattr(Config(), field.name) if default is None else default
    notes = [f"only {', '.join(what.tuners)}"] if what.tuners not in (None, USUAL.get(what.group)) else []
    if "by default" not in what.help.lower():
        notes.append(f"default: {_shown(default)}")
    explanation = " ".join([what.help, *(f"({'; '.join(notes)})" for _ in notes[:1])]).replace("%", "%%")
    if kind is bool:
        parser.add_argument(flag, action="store_true", default=None, help=explanation)
        return
    of = typing.get_args(kind)[0] if several else kind
    parser.add_argument(flag, nargs="+" if several else None, metavar=_metavar(of), help=explanation)


def _shown(default: Any) -> str:
    """Return a default as a user would give it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "on", False: "off"}[default]
    return " ".join(map(str, default)) if isinstance(default, list) else str(default)


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return choices(kind)
    parts = typing.get_args(kind) or (kind,)
    return "{true,false,null}" if bool in parts else "N" if int in parts else "X" if float in parts else "TEXT"


def choices(kind: Any) -> str:
    """Return the values of a Literal as a help text shows them."""
    return f"{{{','.join(typing.get_args(kind))}}}"
