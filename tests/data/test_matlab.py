"""Annotations in MATLAB's format are read whole, or refused in a sentence, in bounded time and memory."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mist_ext.data import matlab

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
CELL, STRUCT, DOUBLE = 1, 2, 6


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, shape: tuple[int, int], content: bytes, name: bytes = b"annotations") -> bytes:
    parts = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack("<ii", *shape)), element(1, name)
    return element(14, b"".join(parts) + content)


def nested(depth: int) -> bytes:
    inner = matrix(DOUBLE, (1, 1), element(9, bytes(8)), b"")
    for _ in range(depth):
        inner = matrix(CELL, (1, 1), inner, b"")
    return matrix(CELL, (1, 1), inner)


def compressed(data: bytes) -> bytes:
    return element(15, zlib.compress(data, 1))


FIELDS = element(5, struct.pack("<i", 8)) + element(1, b"class\0\0\0fname\0\0\0")
ATTACKS = {
    "2^28 structures": lambda: matrix(STRUCT, (1, 2**28), FIELDS),
    "2^30 cells": lambda: matrix(CELL, (1, 2**30), b""),
    "cells nested 20,000 times": lambda: nested(20_000),
    "a gigabyte of zeros, compressed": lambda: compressed(matrix(DOUBLE, (2**27, 1), element(9, bytes(2**28)))),
    "one number": lambda: matrix(DOUBLE, (1, 1), element(9, bytes(8))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_crash_or_fill_the_memory_is_refused(tmp_path: Path, attack: str) -> None:
    (tmp_path / "a.mat").write_bytes(HEAD + ATTACKS[attack]())
    with pytest.raises(ValueError, match=r"a\.mat is no MATLAB file with the variable annotations \(.+\); get it anew"):
        matlab.read(tmp_path / "a.mat", "annotations", ("class", "fname"))


def test_structures_and_lists_are_read_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scipy.py").write_text("raise SystemExit('a file of the user is no module of ours')")
    monkeypatch.chdir(tmp_path)
    rows = np.array([(2, "b.jpg"), (1, "\u00e9.jpg")], dtype=[("class", object), ("fname", object)])
    savemat("a.mat", {"annotations": rows[None], "names": np.array(["x", "yy"], dtype=object)[None]})
    assert matlab.read(Path("a.mat"), "annotations", ("class", "fname")) == [[2, "b.jpg"], [1, "\u00e9.jpg"]]
    assert matlab.read(Path("a.mat"), "names") == [["x"], ["yy"]]
    with pytest.raises(ValueError, match="no MATLAB file with the variable classes"):
        matlab.read(Path("a.mat"), "classes")


def test_only_regular_files_of_a_fitting_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mat")
    with pytest.raises(OSError, match="no regular file"):
        matlab.read(tmp_path / "pipe.mat", "names")
    with open(tmp_path / "large.mat", "wb") as file:
        file.truncate(matlab.MOST_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 16 MiB"):
        matlab.read(tmp_path / "large.mat", "names")
