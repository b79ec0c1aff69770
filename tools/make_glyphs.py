"""Makes ``glyphs.npz``: base bitmaps of 100 characters, none of which looks like a Latin letter or a digit.

    python tools/make_glyphs.py [--sheet SHEET.png]

The bitmaps come from DejaVu Sans and DejaVu Sans Bold, which matplotlib ships (free licence, ``LICENSE_DEJAVU`` there).
They are shipped rather than rendered at load time because a rendering varies with the font library's version.

The characters were picked by eye from those that pass a measurement, which is repeated here: the correlation
of a character's blurred bitmap with every Latin letter and digit (both cases, every font of ``LATIN_FONTS``)
and with every other class, over shifts, small rotations, mirror images and a stretch to the full box, stays
below ``LIMIT``. Left out by eye: what a reader could still take for a letter or a digit (small omega as w,
Sigma as E, Armenian Ja as 2, Georgian Hoe as 3, Hebrew Shin as W, ...).
"""

from __future__ import annotations

import argparse
import string
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mist_ext.data.fonts import BOX, LATIN_FONTS, SIDE, render
from mist_ext.data.glyphs import ASSET

STYLES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
LIMIT = 0.82

# Written as code points, since right-to-left scripts reorder a source line on the screen.
SCRIPTS: dict[str, str] = {
    "greek": "039E 03A6 03A8 03B6",
    "cyrillic": "0414 0416 0429 042E 0468 046A 04A6",
    "armenian": "0539 053D 053E 0540 0543 054A 0556 057A 0583",
    "georgian": "10D3 10DA 10DF 10E0 10E2 10E4 10E6 10EF",
    "hebrew": "05D0 05DC 05E6 05E7",
    "arabic": "0626 0628 062E 0633 0637 063A 0641 0643 0693 0695 06A9 06AE 06BE 06D0",
    "lao": "0E84 0E8A 0E95 0E9C 0E9D 0EA5 0EAA",
    "nko": "07D0 07D2 07E2",
    "tifinagh": "2D44 2D63",
    "canadian": "142D 14D4 14EC 152A 155B 1595 15A2",
    "maths": "00B1 00F7 2217 221D 221E 2230 2234 223F 2248 224E 2259 2260 2261 226A 2277 227A 2286 2295 2297"
    " 229E 22A0 22A8 22AA 22B0 22B4 22B8 22B9 22C4 22C6 22C7 22C8 22D4 22D5 22DC 2318",
}
CODE_POINTS = sorted(int(code, 16) for codes in SCRIPTS.values() for code in codes.split())

Bitmaps = NDArray[np.float32]


def _blurred(image: Image.Image) -> Bitmaps:
    # A blur of about half a stroke lets strokes that nearly coincide count as the same.
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1.2)).resize((24, 24)), dtype=np.float32)


def _stretched(image: Image.Image) -> Image.Image:
    margin = (SIDE - BOX) // 2
    stretched = Image.new("L", (SIDE, SIDE))
    stretched.paste(image.crop(image.getbbox()).resize((BOX, BOX)), (margin, margin))
    return stretched


def _unit(bitmaps: Bitmaps) -> Bitmaps:
    flat = bitmaps.reshape(len(bitmaps), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: Bitmaps = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return unit


def _posed(image: Image.Image) -> Bitmaps:
    """Unit vectors of ``image`` in every pose that is compared: rotations, the mirror image, shifts."""
    poses = []
    for angle in (-12, 0, 12):
        turned = _blurred(image.rotate(angle, resample=Image.Resampling.BILINEAR))
        for shown in (turned, turned[:, ::-1]):
            poses += [np.roll(shown, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)]
    return _unit(np.stack(poses))


def _is_bar(image: Image.Image) -> bool:
    """Whether a stretch to the full box would leave nothing but a blob."""
    left, top, right, bottom = image.getbbox() or (0, 0, 0, 0)
    return min(right - left, bottom - top) < 0.4 * BOX


def similarity(image: Image.Image, references: list[Image.Image]) -> float:
    """Largest correlation (-1 to 1) of any pose of ``image`` with any reference, as is and stretched."""
    plain = _posed(image) @ _unit(np.stack([_blurred(r) for r in references])).T
    if _is_bar(image):
        return float(plain.max())
    filled = _unit(np.stack([_blurred(_stretched(r)) for r in references]))
    return float(max(plain.max(), (_posed(_stretched(image)) @ filled.T).max()))


def measure(images: list[Image.Image]) -> tuple[list[float], list[float]]:
    """Similarity of each class to Latin letters and digits, and to the class most like it."""
    latin = [render(c, font) for font in LATIN_FONTS for c in string.ascii_letters + string.digits]
    to_latin = [similarity(image, latin) for image in images]
    to_class = [similarity(image, images[:i] + images[i + 1 :]) for i, image in enumerate(images)]
    return to_latin, to_class


def sheet(bitmaps: NDArray[np.uint8]) -> Image.Image:
    """A contact sheet of ``[classes, styles, side, side]`` bitmaps, ten classes per row."""
    shown = [np.concatenate(list(styles), axis=1) for styles in bitmaps]
    rows = [np.concatenate(shown[i : i + 10], axis=1) for i in range(0, len(shown), 10)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the base bitmaps of the glyphs data set.")
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet of the characters")
    arguments = parser.parse_args()
    bitmaps = np.stack([np.stack([np.asarray(render(chr(c), font)) for font in STYLES]) for c in CODE_POINTS])
    if arguments.sheet:
        sheet(bitmaps).save(arguments.sheet)
    to_latin, to_class = measure([Image.fromarray(styles[0]) for styles in bitmaps])
    for code, latin, other in zip(CODE_POINTS, to_latin, to_class, strict=True):
        print(f"U+{code:04X}  to Latin {latin:.2f}  to a class {other:.2f}  {unicodedata.name(chr(code))}")
    if max(*to_latin, *to_class) >= LIMIT:
        raise SystemExit(f"a similarity above reaches {LIMIT}; replace that character in SCRIPTS")
    np.savez_compressed(
        arguments.out,
        bitmaps=bitmaps,
        code_points=np.array(CODE_POINTS, dtype=np.int32),
        latin_similarity=np.array(to_latin, dtype=np.float32),
        fonts=np.array(STYLES),
    )


if __name__ == "__main__":
    main()
