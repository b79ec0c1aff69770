"""Decodes image files to RGB of 8 bits a channel: as a viewer shows them, or as published pipelines read them."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from functools import cache

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mist_ext.system import shortage
from mist_ext.system.bounded_files import opened
from mist_ext.system.names import printable

# Formats that Pillow leaves to other programs (Ghostscript) or to libraries that it does not contain.
NOT_DECODED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
# Errors that Pillow's decoders raise on damaged files.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What decoding changes besides colour model and palette, in words that follow the number of images.
TURNED = "are turned as their EXIF orientation says"
FRAMES = "have several frames, pages or layers, of which the first is taken"
TRANSPARENT = "are transparent in places, which become white"
DEEP = "have 16 bits a channel: 0 to 65,535 becomes 0 to 255"
DARK = "have 16 bits a channel but no value above 4,095, so they end nearly black; scale them to 0 to 65,535"
UNIT = "have floating-point values in 0 to 1, which become 0 to 255"
STRETCHED = "have values of no usual range (0 to 1, 255 or 65,535): lowest to highest of each becomes 0 to 255"

AS_SHOWN = "turned as EXIF says, transparent pixels white"
AS_PUBLISHED = "as published: EXIF orientation and transparency ignored"

# What cannot be decoded is an error here; warnings of damaged metadata or of large sizes would only distract.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenImage(ValueError):
    """An image that cannot be decoded; the message names it."""


@cache
def suffixes() -> frozenset[str]:
    """Return all suffixes, in lower case and with their dot, of formats that can be decoded here."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in formats() or name == "MPO")  # read as JPEG


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that any file is tried as, by its content, not its suffix."""
    registered = set(Image.registered_extensions().values())  # the others accept too many files
    return tuple(name for name in Image.OPEN if name in registered and name not in NOT_DECODED)


def decode(path: str | os.PathLike[str], as_shown: bool) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image file to RGB.

    Deep images are scaled by their range: `DEEP`, `UNIT`, `STRETCHED`. Of several frames the first is taken. Other
    colour models are converted by Pillow's formulas, without colour profiles.

    Parameters
    ----------
    path : path-like
    as_shown : bool
        Whether it is turned as its EXIF orientation says, and what is transparent becomes white. Published pipelines
        ignore both.

    Returns
    -------
    Image
        RGB of 8 bits a channel; its pixels are in memory.
    tuple of str
        What was changed, in words.

    Raises
    ------
    BrokenImage
        If it is no regular file, cannot be decoded, or has more than 179 million pixels.
    """
    try:
        with opened(path) as file, Image.open(file, formats=formats()) as image:
            frames = (FRAMES,) if getattr(image, "is_animated", False) else ()
            converted, changes = rgb(image, as_shown)
            return converted, frames + changes
    except DAMAGED as error:
        if shortage.kind_of(error) not in (None, "memory"):  # a damaged file may claim any size
            raise
        raise BrokenImage(f"{printable(str(path))} cannot be decoded ({_reason(error)})") from error


def rgb(image: Image.Image, as_shown: bool) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an open image to RGB as `decode` does.

    Parameters
    ----------
    image : Image
    as_shown : bool
        As for `decode`.

    Returns
    -------
    Image
        RGB of 8 bits a channel; its pixels are in memory.
    tuple of str
        What was changed, in words.

    Raises
    ------
    ValueError
        If it has no pixels, or values that are not finite.
    Exception
        Any of `DAMAGED`, as Pillow raises it, if its pixels cannot be decoded.
    """
    if 0 in image.size:
        raise ValueError("it has no pixels")
    image.load()
    changes = []
    if as_shown and (method := _turning(image)) is not None:
        image = image.transpose(method)
        changes.append(TURNED)
    if image.mode == "F" or image.mode.startswith("I"):
        image, change = _eight_bits(image)
        changes += [change] if change else []
    if as_shown and image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            changes.append(TRANSPARENT)
    return image if image.mode == "RGB" else image.convert("RGB"), tuple(changes)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is of no format that is known here"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)) or type(error).__name__


def _turning(image: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGED:
        return None  # damaged metadata say nothing about the pixels


def _eight_bits(image: Image.Image) -> tuple[Image.Image, str]:
    """Return grey values of more than 8 bits scaled to 8 by their range, and how they were scaled, in words."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(high - low):
        raise ValueError("it holds values that are not finite")
    if image.mode != "F" and low >= 0 and high <= 65535:  # as Pillow scales colours; it opens some as 32 bits
        return Image.fromarray((values >> 8).astype(np.uint8)), DARK if 0 < high < 4096 else DEEP
    base, span, change = low, high - low, STRETCHED
    if image.mode == "F" and low >= 0 and high <= 255:
        base, span, change = (0.0, 1.0, UNIT) if high <= 1 else (0.0, 255.0, "")
    scaled = values.astype(np.float32)
    scaled -= base
    scaled *= 255 / (span or 1)
    return Image.fromarray(scaled.round().astype(np.uint8)), change
