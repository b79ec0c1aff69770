"""What a file of weights declares, looked at before anything of it is unpacked: its kind, its arrays, their sizes."""

from __future__ import annotations

import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mist_ext.system.bounded_files import opened

_HEADS = ("head/", "pre_logits/")  # of an .npz, which no backbone reads
_LEAST = 2**24  # bytes that may always be unpacked
# What a damaged zip archive, array or pickle raises.
DAMAGED = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
    EOFError,
    ImportError,
    MemoryError,
    OverflowError,
    pickle.UnpicklingError,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class Declared(NamedTuple):
    """An array as an .npz declares it."""

    shape: tuple[int, ...]
    dtype: Any


def declared_arrays(file: Path, entries: int) -> dict[str, Declared]:
    """Return the arrays that an .npz declares, by name, once their sizes are found to suit a backbone.

    Parameters
    ----------
    file : Path
    entries : int
        The number of the backbone's parameters, which bounds the bytes that are unpacked.

    Returns
    -------
    dict of str to Declared
        Shape and dtype of each array; no array is read.

    Raises
    ------
    ValueError
        If it is damaged, holds objects, or unpacks to far more than the backbone takes.
    """
    found: dict[str, Declared] = {}
    unpacked = 0
    try:
        with opened(file) as stream, zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                found[name] = _header(archive, member)
                unpacked += 0 if any(head in f"{name}/" for head in _HEADS) else member.file_size
    except DAMAGED as error:
        raise ValueError(f"weights file '{file}' cannot be read as .npz without unpickling: {error}") from error
    if unpacked > (most := max(_LEAST, 4 * 8 * entries)):
        raise ValueError(
            f"weights file '{file}' unpacks to {unpacked / 1e9:.2f} GB, but the backbone's {entries:,} parameters take "
            f"{4 * entries / 1e9:.2f} GB, and at most {most / 1e9:.2f} GB are read; give a file made for it"
        )
    return found


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Declared:
    from numpy.lib import format as npy

    with archive.open(member) as array:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(array)]
        shape, _, dtype = read(array)
        begin = array.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds objects")
    if dtype.kind not in "fiu":
        raise ValueError(f"{member.filename} is of {dtype}, expected numbers")
    if begin + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename} has {member.file_size} bytes, too few or too many for {shape} of {dtype}")
    return Declared(tuple(shape), dtype)


def check_pickled(file: Path) -> None:
    """Raise ValueError unless a file is one of torch.save's, and takes no more memory than it has bytes."""
    with opened(file) as stream:
        begin = stream.read(1024)
        if begin.startswith(b"PK"):
            _check_zip(file, stream)
        elif not begin.startswith(b"\x80"):
            text = begin and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in begin)
            what = "is text" if text else "is empty" if not begin else "is of another kind"
            raise ValueError(
                f"weights file '{file}' cannot be read: it {what}, expected what torch.save writes; give the file of "
                "weights itself, and not the page or the pointer that stands for it"
            )


def _check_zip(file: Path, stream: Any) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            members: Sequence[zipfile.ZipInfo] = archive.infolist()
    except DAMAGED as error:
        raise ValueError(f"weights file '{file}' cannot be read, is it whole? {error}") from error
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > file.stat().st_size:
        raise ValueError(
            f"weights file '{file}' cannot be read: it unpacks to more than it has bytes, which torch.save never "
            "writes; save the state_dict anew"
        )
