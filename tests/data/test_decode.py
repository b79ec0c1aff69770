"""Image files of every format, depth and colour model come out as what they show, and what was changed is said."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch.utils.data import DataLoader

from mist_ext.data import decode
from mist_ext.data.decode import BrokenImage
from mist_ext.data.image_sets import ImageFiles

RAMP = np.linspace(0, 255, 48 * 40).round().astype(np.uint8).reshape(40, 48)  # every grey value
FORMATS = ["bmp", "GIF", "ico", "JP2", "jpg", "pcx", "png", "pgm", "qoi", "sgi", "tga", "tif", "tiff", "webp"]
FORMATS += ["avif"] if features.check("avif") else []


def read(path: Path, as_shown: bool = True) -> np.ndarray:
    return np.asarray(decode.decode(path, as_shown)[0])


def changes(path: Path, as_shown: bool = True) -> tuple[str, ...]:
    return decode.decode(path, as_shown)[1]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_that_pillow_writes_is_read_back(tmp_path: Path, suffix: str) -> None:
    picture = (
        Image.fromarray(RAMP).convert("RGB") if suffix != "ico" else Image.fromarray(RAMP[:32, :32]).convert("RGB")
    )
    path = tmp_path / f"ramp.{suffix}"
    picture.save(path, **({"sizes": [(32, 32)]} if suffix == "ico" else {}))
    assert path.suffix.lower() in decode.suffixes()
    error = np.abs(read(path).astype(int) - np.asarray(picture).astype(int)).max()
    assert error <= (8 if suffix in ("jpg", "webp", "avif", "JP2") else 0)
    assert changes(path) == ()


def test_nothing_is_handed_to_other_programs(tmp_path: Path) -> None:
    assert decode.suffixes().isdisjoint({".eps", ".ps", ".wmf", ".h5", ".mpg", ".pdf"})
    assert decode.suffixes() > {
        ".jpg",
        ".jpeg",
        ".png",
        ".ppm",
        ".bmp",
        ".pgm",
        ".tif",
        ".tiff",
        ".webp",
    }  # ImageFolder's
    Image.fromarray(RAMP).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(BrokenImage, match=r"a.png cannot be decoded \(it is of no format that is known here\)"):
        decode.decode(tmp_path / "a.png", True)


@pytest.mark.parametrize("as_shown", [True, False])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path, suffix: str, as_shown: bool) -> None:
    deep = RAMP.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read(tmp_path / f"a.{suffix}", as_shown)[..., 1], RAMP)
    assert changes(tmp_path / f"a.{suffix}", as_shown) == (decode.DEEP,)
    Image.fromarray(deep >> 6).save(tmp_path / f"b.{suffix}")
    if suffix != "pgm":  # which says how many bits there are
        assert changes(tmp_path / f"b.{suffix}") == (decode.DARK,)


@pytest.mark.parametrize(
    ("values", "change"),
    [
        (RAMP.astype(np.int32) * 257, decode.DEEP),
        (RAMP.astype(np.int32) * 70_000 - 3, decode.STRETCHED),
        (RAMP.astype(np.float32) / 255, decode.UNIT),
        (RAMP.astype(np.float32), ""),
        (RAMP.astype(np.float32) * 1e6 - 5e3, decode.STRETCHED),
    ],
)
def test_integers_and_floats_of_32_bits_are_scaled_by_their_range(tmp_path: Path, values, change: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(read(tmp_path / "a.tif")[..., 0].astype(int) - RAMP).max() <= 1
    assert "".join(changes(tmp_path / "a.tif")) == change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    values = RAMP.astype(np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(BrokenImage, match="not finite"):
        decode.decode(tmp_path / "a.tif", True)


def test_an_even_image_is_decoded(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 4), -7, dtype=np.int32)).save(tmp_path / "a.tif")
    assert not read(tmp_path / "a.tif").any()


ORIENTED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what the camera saw, to what it wrote
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: np.rot90,
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, 3),
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photo_is_turned_unless_read_as_published(tmp_path: Path, orientation: int, suffix: str) -> None:
    seen = np.repeat(RAMP[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](seen)))
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    assert np.abs(read(tmp_path / f"a.{suffix}").astype(int) - seen).max() <= 3
    assert changes(tmp_path / f"a.{suffix}") == ((decode.TURNED,) if orientation > 1 else ())
    assert read(tmp_path / f"a.{suffix}", as_shown=False).shape[:2] == stored.size[::-1]
    assert changes(tmp_path / f"a.{suffix}", as_shown=False) == ()


def test_damaged_metadata_do_not_make_an_image_unreadable(tmp_path: Path) -> None:
    for exif in (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\xff\xff\xff\xff\0\0\0\0",
        b"Exif\0\0II*",
        b"Exif\0\0junk",
    ):
        Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=exif)
        assert read(tmp_path / "a.jpg").shape == (40, 48, 3)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_what_is_transparent_is_white_unless_read_as_published(tmp_path: Path, mode: str) -> None:
    ink = np.zeros((8, 8, 4), dtype=np.uint8)  # black on transparent black, as icons are
    ink[2:6, 2:6, 3] = 255
    options = {}
    image = Image.fromarray(ink)
    if mode in ("L", "RGB"):
        image = Image.new("RGB", (8, 8), (9, 9, 9)).convert(mode)
        image.paste(0 if mode == "L" else (0, 0, 0), (2, 2, 6, 6))
        options["transparency"] = 9 if mode == "L" else (9, 9, 9)
    elif mode == "P":
        image = image.quantize(4)
    else:
        image = image.convert("LA" if mode == "LA" else "RGBA")
    image.save(path := tmp_path / "a.png", **options)
    shown = read(path)
    assert (shown[0, 0] == 255).all()
    assert (shown[3, 3] < 8).all()
    assert changes(path) == (decode.TRANSPARENT,)
    assert (read(path, as_shown=False)[0, 0] < 10).all()


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    Image.fromarray(RAMP).convert("RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[..., 0], RAMP)
    assert changes(tmp_path / "a.png") == ()


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "LAB"])
def test_other_colour_models_are_converted(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (8, 8), "white").convert("L" if mode == "1" else "RGB")
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (8, 8), 255), *[Image.new("L", (8, 8), 128)] * 2])
    image = image if mode == "LAB" else image.convert(mode)
    image.save(tmp_path / "a.tif")
    assert (read(tmp_path / "a.tif") > 225).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert (read(tmp_path / f"a.{suffix}")[0, 0] >= (250, 0, 0)).all()
    assert read(tmp_path / f"a.{suffix}")[0, 0].tolist()[1] < 6
    assert changes(tmp_path / f"a.{suffix}") == (decode.FRAMES,)


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp", "jpg", "bmp"])
def test_a_decoded_image_is_whole_and_its_file_closed(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(RAMP).convert("RGB")
    image.save(path := tmp_path / f"a.{suffix}", save_all=suffix in ("gif", "tif", "webp"))
    before = len(os.listdir("/proc/self/fd"))
    kept = [decode.decode(path, True)[0] for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    path.write_bytes(b"changed meanwhile")
    assert kept[0].resize((5, 5)).getextrema() == kept[1].resize((5, 5)).getextrema()
    files = ImageFiles([path], torch.zeros(1, dtype=torch.int64))
    with pytest.raises(BrokenImage, match="cannot be decoded"):
        next(iter(DataLoader(files, batch_size=1)))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "zero.png", "folder.png"):
        with pytest.raises(BrokenImage, match=f"{name} cannot be decoded .*(regular file|directory)"):
            decode.decode(tmp_path / name, True)


def test_bombs_are_refused_by_name_and_large_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size // 3)
    with pytest.raises(BrokenImage, match=r"a.png cannot be decoded .*exceeds limit"):
        decode.decode(tmp_path / "a.png", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RAMP.size * 2 // 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert read(tmp_path / "a.png").shape == (40, 48, 3)


def test_too_many_open_files_are_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(decode, "opened", refused)
    with pytest.raises(OSError, match="Too many open files"):
        decode.decode(tmp_path / "a.png", True)


def test_names_are_shown_without_control_codes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\x1b[31m\xff\n.png")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BrokenImage) as error:
        decode.decode(tmp_path / name, True)
    assert r"\x1b[31m\udcff\n.png cannot be decoded" in str(error.value)
    assert str(error.value).isprintable()
