"""Fonts for names in scripts that the default font has not."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text


# Whether a font has the weight that was asked for is matplotlib's to know; it tells it of every font that is looked at.
logging.getLogger("matplotlib.font_manager").addFilter(lambda record: "find font weight" not in record.getMessage())


def add_fallbacks(figure: Figure) -> None:
    """Add fonts of this system to each text of a figure whose own font lacks some of its characters.

    Where the system has none either, boxes are drawn in a PNG; the text of an SVG is a browser's to draw.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if missing := _missing(text):
            text.set_fontfamily([*text.get_fontfamily(), *_fallbacks(missing)])


def _missing(text: Text) -> frozenset[int]:
    """Return the characters that a text's font has no glyph for."""
    if (words := text.get_text()).isascii():
        return frozenset()
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(text.get_fontproperties()))
    return frozenset(ord(each) for each in words if not each.isspace() and not font.get_char_index(ord(each)))


@cache
def _fallbacks(missing: frozenset[int]) -> list[str]:
    """Return the names of the fewest fonts that have the most of some characters, the one with most of them first."""
    from matplotlib.font_manager import fontManager

    # Last Resort has boxes for everything.
    names = sorted({font.name for font in fontManager.ttflist if not font.name.startswith("Last Resort")})
    having = {name: missing & _characters(name) for name in names}
    chosen, left = [], missing
    while found := left & having[best := max(names, key=lambda name: len(left & having[name]))]:
        chosen.append(best)
        left -= found
    return chosen


@cache
def _characters(name: str) -> frozenset[int]:
    """Return what a font of this system can write; nothing where matplotlib cannot draw it."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        font = get_font(findfont(FontProperties(family=name), fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # gone since the list of fonts was made, or damaged
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()  # not the pictures of emojis
