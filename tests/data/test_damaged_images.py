"""Images of any damage are read or refused in a sentence, within bounded time, by `load` and `mist data check`."""

from __future__ import annotations

import io
import time
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image, features
from rich.console import Console

from mist_ext.data import load
from mist_ext.data.check_command import check
from mist_ext.data.decode import BrokenImage

FORMATS = ["bmp", "dds", "gif", "icns", "ico", "jp2", "jpg", "mpo", "msp", "pcx", "pfm", "png", "ppm", "qoi"]
FORMATS += ["sgi", "tga", "tif", "webp", "xbm", *(["avif"] if features.check("avif") else [])]
EACH = 27  # mutations of a format
OPTIONS = {"mpo": {"save_all": True}, "gif": {"save_all": True}, "tif": {"compression": "tiff_lzw"}}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def whole(suffix: str) -> bytes:
    """A small image of a format."""
    image = miniatures.picture(77, 3, (32, 32))
    image = image.convert({"msp": "1", "xbm": "1", "pfm": "F"}.get(suffix, "RGB"))
    options = {"exif": Image.Exif()} if suffix in ("jpg", "png", "webp") else OPTIONS.get(suffix, {})
    kind = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(suffix) or Image.registered_extensions()[f".{suffix}"]
    image.save(buffer := io.BytesIO(), kind, **options, append_images=[image] if "save_all" in options else [])
    return buffer.getvalue()


def mutated(data: bytes, draws: np.random.Generator) -> bytes:
    """Bytes overwritten, cut out, repeated or swapped for extreme numbers, more often at the beginning."""
    made = bytearray(data)
    for _ in range(draws.integers(1, 8)):
        place = int(len(made) * draws.random() ** 3)
        length = int(draws.integers(1, 9))
        match draws.integers(0, 6):
            case 0 | 1:
                made[place : place + length] = draws.bytes(length)
            case 2:
                made[place : place + length] = draws.choice([b"\xff", b"\0", b"\x7f"]) * length
            case 3:
                del made[place : place + length]
            case 4:
                made[place:place] = made[place : place + 16 * length]
            case 5:
                del made[max(1, place) :]
    return bytes(made)


def test_mutated_images_of_every_format_are_read_or_refused(tmp_path: Path) -> None:
    draws = np.random.default_rng(14)
    count = 0
    for label, suffix in enumerate(FORMATS):
        data = whole(suffix)
        for part, number in (("train", EACH - 3), ("test", 3)):
            folder = tmp_path / part / suffix
            folder.mkdir(parents=True)
            miniatures.picture(label, 500 + number, (20, 20)).save(folder / "whole.png")
            for row in range(number):
                (folder / f"{row}.{suffix}").write_bytes(mutated(data, draws))
                count += 1
    assert count == EACH * len(FORMATS) >= 500
    source = load(f"folder:{tmp_path}")
    broken = 0
    for images in (source.train, source.test):
        for row in range(len(images)):
            begun = time.process_time()
            try:
                image = images.read(row)
            except BrokenImage as error:
                broken += 1
                message = str(error)
                assert message.startswith(f"{images.where(row)} cannot be decoded (")
                assert message.isprintable()
                assert len(message) < 1000
            else:
                assert image.mode == "RGB"
                assert image.resize((3, 3)).size == (3, 3)
            assert time.process_time() - begun < 5, images.where(row)
    assert 50 < broken < count  # the mutations do something, and do not destroy everything
    output = io.StringIO()
    assert check(f"folder:{tmp_path}", None, 0.2, False, Console(file=output, width=200)) == 1
    assert output.getvalue().count("cannot be decoded") == broken


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_images_that_are_mutated_are_whole(tmp_path: Path, suffix: str) -> None:
    miniatures.class_folders(tmp_path, ["a"], {"": 3})
    (tmp_path / "a" / f"other.{suffix}").write_bytes(whole(suffix))
    source = load(f"folder:{tmp_path}", test_fraction=0.25)
    assert len(source.train) + len(source.test) == 4
    output = io.StringIO()
    assert check(f"folder:{tmp_path}", None, 0.25, False, Console(file=output, width=200)) == 0, output.getvalue()
