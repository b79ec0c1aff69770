"""write_atomically: the old content or the new one, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mist_ext.system.files import write_atomically


def test_text_is_written_as_utf8_with_its_line_ends(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "84 ± 2\r\nβ\n")
    assert (tmp_path / "a.txt").read_bytes() == "84 ± 2\r\nβ\n".encode()


def test_bytes_replace_a_longer_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"x" * 1000)
    write_atomically(str(file), b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failure_before_the_rename_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    seen = []
    sync = os.fsync

    def spy(descriptor: int) -> None:
        seen.append((os.fstat(descriptor).st_size, file.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(file, "newer")
    assert seen[0] == (5, "old")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent is no folder"):
        write_atomically(tmp_path / "absent" / "a.txt", "")
