"""Makes ``renditions.npz`` and ``renditions_dev.npz``: bitmaps of characters whose scripts no backbone here was shown.

    apt-get install culmus fonts-dejavu fonts-freefont-ttf fonts-sil-abyssinica fonts-thai-tlwg
    python tools/make_renditions.py [--sheets FOLDER]

Licences: culmus and the Thai fonts GPL 2 with an exception for documents that embed them, FreeFont GPL 3 with the same
exception, DejaVu that of Bitstream Vera, Abyssinica SIL OFL 1.1. Bitmaps are shipped rather than rendered at load time,
because a rendering varies with the font library's version. Noto, which ``vit_nano.scripts`` was pre-trained on, is left
out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from characters import distinct, in_typefaces
from fontTools.ttLib import TTFont
from PIL import Image

from mist_ext.data.renditions import ASSETS

FONTS = Path("/usr/share/fonts")
CLASSES = 100
DEJAVU = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold")
CULMUS = tuple(f"{name}CLM-Medium" for name in ("FrankRuehl", "David", "Simple")) + tuple(
    f"{name}CLM-{style}" for name, style in (("Hadasim", "Regular"), ("Miriam", "Book"), ("Nachlieli", "Bold"))
)
# Of each script: its code points and typefaces, the first of which tells look-alikes.
SCRIPTS: dict[str, tuple[list[int], tuple[str, ...]]] = {
    "hebrew": (
        list(range(0x05D0, 0x05EB)),
        (*CULMUS, "KeterYG-Medium", "ShofarRegular"),
    ),
    "georgian": (list(range(0x10D0, 0x10F1)), (*DEJAVU, "FreeSerif", "FreeMono")),
    "tifinagh": (list(range(0x2D30, 0x2D68)), ("DejaVuSans", "DejaVuSans-Bold")),
    "ethiopic": (list(range(0x1200, 0x1358, 8)), ("AbyssinicaSIL-Regular", "FreeSerif")),
    "thai": (
        list(range(0x0E01, 0x0E2F)),
        ("Garuda", "Kinnari", "Laksaman", "Loma", "Norasi", "Purisa", "Sawasdee", "TlwgMono"),
    ),
    "armenian": ([*range(0x0531, 0x0557), *range(0x0561, 0x0587)], (*DEJAVU, "FreeSerif", "FreeMono")),
}
STREAMS = {"renditions": ("hebrew", "georgian", "tifinagh", "ethiopic"), "renditions_dev": ("thai", "armenian")}


def fonts_of(script: str) -> dict[str, list[Path]]:
    """Return the characters of a script with the fonts that have them."""
    codes, names = SCRIPTS[script]
    having: dict[str, list[Path]] = {chr(code): [] for code in codes}
    for name in names:
        found = [path for path in sorted(FONTS.rglob(f"{name}.*")) if path.suffix in (".ttf", ".otf")]
        if not found:
            raise SystemExit(f"no font {name} below {FONTS}: see the packages that this file names")
        with TTFont(found[0], lazy=True) as font:
            for code in font.getBestCmap().keys() & set(codes):
                having[chr(code)].append(found[0])
    return {character: paths for character, paths in having.items() if paths}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the base bitmaps of the renditions data sets.")
    parser.add_argument("--sheets", type=Path, help="also write a contact sheet of each into this folder")
    arguments = parser.parse_args()
    for name, scripts in STREAMS.items():
        having = {character: paths for script in scripts for character, paths in fonts_of(script).items()}
        different = distinct({character: paths[0] for character, paths in having.items()})
        # Evenly over the scripts; a stream draws the order of its classes anyhow.
        chosen = [different[i * len(different) // CLASSES] for i in range(CLASSES)]
        bitmaps = np.stack([in_typefaces(character, having[character]) for character in chosen])
        print(f"{name}: {len(having)} characters, {len(different)} unlike each other, {len(set(chosen))} classes")
        np.savez_compressed(
            ASSETS / f"{name}.npz",
            bitmaps=bitmaps,
            code_points=np.array([ord(character) for character in chosen], dtype=np.int32),
        )
        if arguments.sheets:
            rows = bitmaps[:, :2].reshape(10, 10, 2, *bitmaps.shape[2:]).transpose(0, 3, 1, 2, 4)
            Image.fromarray(rows.reshape(10 * bitmaps.shape[2], -1)).save(arguments.sheets / f"{name}.png")


if __name__ == "__main__":
    main()
