"""Which characters ``vit_nano.scripts`` is pre-trained on, rendered from the system's fonts.

On Debian ``apt-get install fonts-noto-core fonts-noto-extra`` (licence: SIL Open Font License 1.1). The scripts of the
streams that come with the package, and every typeface but Noto, are left out: no backbone has seen them.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fontTools.ttLib import TTFont
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from mist_ext.data.fonts import render

NOTO = Path("/usr/share/fonts/truetype/noto")
HELD_OUT = ("HEBREW", "GEORGIAN", "ETHIOPIC", "TIFINAGH", "THAI", "LAO", "ARMENIAN")
# Marks and variants of other scripts' letters, names that say no script, and thousands of look-alikes.
LEFT_OUT = ("?", "CJK", "DOUBLE-STRUCK", "DUPLOYAN", "MATHEMATICAL", "MODIFIER", "TANGUT")
# Widths and weights between those that are taken.
OTHER_STYLES = ("Condensed", "SemiBold", "ExtraBold", "ExtraLight", "Medium", "Display", "UI-", "Mono", "Symbols")
PER_SCRIPT = 20
PER_CLASS = 8  # typefaces
LIMIT = 0.85  # of the correlation of two classes


def script(character: str) -> str:
    """Return the first word of a character's Unicode name, which is its script for letters."""
    return unicodedata.name(character, "?").split()[0]


@cache
def _typefaces() -> dict[str, list[Path]]:
    """Return the Noto fonts that have each letter, in the order of their names."""
    having = defaultdict(list)
    files = [path for path in sorted(NOTO.glob("*.ttf")) if not any(style in path.name for style in OTHER_STYLES)]
    if not files:
        raise SystemExit(f"no fonts in {NOTO}: apt-get install fonts-noto-core fonts-noto-extra")
    for path in files:
        with TTFont(path, lazy=True) as font:
            for code in font.getBestCmap():
                if unicodedata.category(chr(code)) in ("Ll", "Lo", "Lu"):
                    having[chr(code)].append(path)
    return having


def _is_basic(character: str) -> bool:
    """Whether a letter is no variant of another: no accent, no ligature, no presentation form."""
    name = unicodedata.name(character, "?")
    return (
        unicodedata.normalize("NFKC", character) == character
        and " WITH " not in name
        and not (name.startswith("LATIN") and ord(character) > 127)
    )


def _unit(bitmaps: list[Image.Image]) -> NDArray[np.float32]:
    """Return blurred bitmaps as unit vectors, whose product is the correlation."""
    small = [image.filter(ImageFilter.GaussianBlur(1.5)).resize((24, 24)) for image in bitmaps]
    flat = np.stack([np.asarray(image, dtype=np.float32).ravel() for image in small])
    flat -= flat.mean(axis=1, keepdims=True)
    unit: NDArray[np.float32] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return unit


def _regular(character: str) -> Path | None:
    upright = [path for path in _typefaces()[character] if "Italic" not in path.name]
    return next((path for path in upright if "Regular" in path.name), upright[0] if upright else None)


def choose() -> list[str]:
    """Return the classes: up to ``PER_SCRIPT`` letters of every script, none of which looks like another."""
    of_script = defaultdict(list)
    for character in sorted(_typefaces()):
        if script(character) not in (*HELD_OUT, *LEFT_OUT) and _is_basic(character) and _regular(character):
            of_script[script(character)].append(character)
    candidates = []
    for characters in of_script.values():
        count = min(PER_SCRIPT, len(characters))
        candidates += [characters[i * len(characters) // count] for i in range(count)]
    regular = {character: _regular(character) for character in candidates}
    return distinct({character: path for character, path in regular.items() if path})


def distinct(fonts: dict[str, Path]) -> list[str]:
    """Return the characters, each in its font, that have ink and are unlike all that come before them."""
    inked = []
    for character, path in fonts.items():
        try:
            inked.append((character, render(character, path)))
        except ValueError:
            continue
    unit = _unit([bitmap for _, bitmap in inked])
    kept: list[int] = []
    for i in range(len(inked)):
        if not kept or (unit[kept] @ unit[i]).max() < LIMIT:
            kept.append(i)
    return [inked[i][0] for i in kept]


def render_classes(characters: list[str]) -> Tensor:
    """Render characters in ``PER_CLASS`` typefaces each, the same again where there are fewer.

    Returns
    -------
    Tensor
        uint8 ``[classes, PER_CLASS, side, side]``, ink white.
    """
    return torch.from_numpy(np.stack([in_typefaces(character, _typefaces()[character]) for character in characters]))


def in_typefaces(character: str, paths: list[Path]) -> NDArray[np.uint8]:
    """Return a character in ``PER_CLASS`` of some fonts: uint8 ``[PER_CLASS, side, side]``."""
    count = min(PER_CLASS, len(paths))
    bitmaps = [np.asarray(render(character, paths[i * len(paths) // count])) for i in range(count)]
    return np.stack([bitmaps[i % count] for i in range(PER_CLASS)])
