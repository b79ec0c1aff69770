"""A parser of arguments whose errors are one sentence."""

from __future__ import annotations

import argparse
import re
import shutil
from typing import Any, NoReturn

from mist_ext.config.option import unknown_option
from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

WIDEST = 100  # columns of a help text


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(WIDEST, shutil.get_terminal_size().columns) - 1)


class _Once(argparse.Action):
    """Takes an option's value, and refuses a second one, which would take the place of the first without a word."""

    def __call__(self, parser: Any, namespace: Any, values: Any, flag: str | None = None) -> None:
        if flag is not None and getattr(namespace, self.dest) is not self.default:
            several = f"give all values after one {flag}" if self.nargs else "leave one out"
            raise ValueError(f"{flag} is given twice; {several}")
        if values == "" and self.metavar == "FOLDER":
            raise ValueError(f"{flag} is '', expected a folder; leave it out for the default")
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, a ValueError, and suggest the nearest options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, add_help=False, formatter_class=_Help, **options)
        self.register("action", None, _Once)
        self.add_argument("-h", "--help", action="help", help="show this text")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; what is left over is an error of this command, not of the one above it."""
        found, rest = super().parse_known_args(args, namespace)
        flags = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        if rest and rest[0].startswith("-"):
            raise unknown_option("option", rest[0].partition("=")[0], flags)
        if rest:
            raise ValueError(f"{quoted(rest[0])} belongs to no option; switches take no value; see {self.prog} --help")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message in this program's words."""
        if found := re.match(r"argument (\S+): expected", message):
            raise ValueError(f"{found[1]} needs a value; one that begins with a dash is given as {found[1]}=VALUE")
        if found := re.match(r"argument (\S+): ignored explicit argument", message):
            raise ValueError(f"{found[1]} is a switch and takes no value; give it to turn it on")
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                if found := re.search(r"invalid choice: '?(.*?)'? \(choose", message):
                    raise unknown("command", found[1], action.choices)
                raise ValueError(f"{self.prog} needs a command: {', '.join(action.choices)}; see {self.prog} --help")
        missing = message.partition("required: ")[2]
        raise ValueError(f"{self.prog} needs {missing or message}; see {self.prog} --help")
