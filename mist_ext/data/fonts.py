"""Single characters, rendered from a font's file or from those that matplotlib ships."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

SIDE = 48
BOX = 40  # the ink's longer side, in pixels

LATIN_FONTS = (
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
    *(f"cm{style}10.ttf" for style in ("r", "b", "ss", "tt", "ti")),
)


@cache
def _font(name: str | Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), 160)


def render(character: str, font: str | Path) -> Image.Image:
    """Render one character, white on black, centred, its longer side ``BOX`` pixels.

    Parameters
    ----------
    character : str
        A single character.
    font : str or Path
        File name of a font that matplotlib ships, or the absolute path of any other.

    Returns
    -------
    Image
        Mode "L", ``SIDE`` x ``SIDE`` pixels.
    """
    canvas = Image.new("L", (480, 480))
    ImageDraw.Draw(canvas).text((240, 240), character, fill=255, font=_font(font), anchor="mm")
    box = canvas.getbbox()
    if box is None:
        code = f"U+{ord(character):04X}"
        raise ValueError(f"character {code} has no ink in {font}; choose a font that contains it")
    ink = canvas.crop(box)
    factor = BOX / max(ink.size)
    width, height = (max(1, round(length * factor)) for length in ink.size)
    placed = Image.new("L", (SIDE, SIDE))
    shrunk = ink.resize((width, height), Image.Resampling.BOX)
    placed.paste(shrunk, ((SIDE - width) // 2, (SIDE - height) // 2))
    return placed
