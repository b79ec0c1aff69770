"""Names are data: how one that a user or a file gave is shown, so that it neither hides, moves nor colours anything."""

from __future__ import annotations

import reprlib
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 60  # characters of a name in a table or figure
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control codes, marks of direction, halves of pairs, ends of lines
_JOINERS = "\u200c\u200d"  # which scripts and emojis need
_QUOTING = reprlib.Repr()
_QUOTING.maxstring = _QUOTING.maxother = _QUOTING.maxlong = 2 * LONGEST


def printable(text: str) -> str:
    """Return a text in which what cannot be seen, or would steer a terminal, is written as an escape: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escaped(each) if unicodedata.category(each) in _HIDDEN else each for each in text)


def printable_lines(text: str) -> str:
    """Return a message of several lines, each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def utf8(text: str) -> str:
    """Return a text that can be written as UTF-8: what is not, in the name of a file, is an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(name: object, longest: int = LONGEST) -> str:
    """Return a name as tables and figures have it: `printable`, and cut in its middle where it is longer than that."""
    text = str(name)
    start, end = printable(text[:longest]), printable(text[-longest:])
    if len(text) <= longest and len(start) <= longest:
        return start
    return f"{start[: longest - longest // 3 - 1]}…{end[-(longest // 3) :]}"


def quoted(value: object) -> str:
    """Return a value as an error shows it: Python's own notation, cut where it is long."""
    return printable(_QUOTING.repr(value))


def say(console: Console, message: str, style: str = "") -> None:
    """Print a message as it is: nothing in it is markup, and its lines are broken by the terminal alone."""
    from rich.text import Text

    console.print(Text(printable_lines(message), style=style), soft_wrap=True)


def _escaped(character: str) -> str:
    return character if character in _JOINERS else character.encode("unicode_escape").decode("ascii")
