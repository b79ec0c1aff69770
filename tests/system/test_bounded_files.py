"""bounded_files: what would hang, fill the memory or end in another's error is a sentence that names the file."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from mist_ext.system import bounded_files


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe is no regular file"):
        bounded_files.opened(tmp_path / "pipe")


def test_a_device_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=str(path)):
            bounded_files.read_bytes(path, 10)


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert bounded_files.read_bytes(tmp_path / "file", 10) == b"0123456789"
    with pytest.raises(ValueError, match="file is larger than"):
        bounded_files.read_bytes(tmp_path / "file", 9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ('{"a": "b"}', r"Expected `int`, got `str` - at `\$\[\.\.\.\]`"),
        ('{"a": 1e308}', "Expected `int`"),
        ('{"a": -Infinity}', "it holds -Infinity, which is no number of JSON"),
        ("\xff", "malformed"),
    ],
)
def test_damaged_json_is_a_sentence(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"x.json is damaged.*: .*{reason}"):
        bounded_files.read_json(tmp_path / "x.json", dict[str, int])


def test_json_that_is_nested_too_deeply_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"x.json is damaged: it is nested too deeply"):
        bounded_files.read_json(tmp_path / "x.json", list)


def test_json_is_read_into_its_type(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert bounded_files.read_json(tmp_path / "x.json", dict[str, int]) == {"a": 1}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "expands to more than 100,000 values"),
        ("&a [*a]", "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
        ("a: b: c", r"no valid YAML: .* in \".*x\.yaml\", line 1, column 5"),
        ("a: !!python/object/apply:os.system [ls]", "no valid YAML"),
        ("\x00", r"no valid YAML: .* in \".*x\.yaml\", position 0"),
        ("\xff", "no valid YAML"),
        ("#" * 2**20 + "#", "larger than 1 MiB"),
    ],
)
def test_yaml_that_is_wrong_is_a_sentence(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "x.yaml").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"x.yaml .*{reason}"):
        bounded_files.read_yaml(tmp_path / "x.yaml")


def test_yaml_keeps_its_aliases(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a [1]\nb: *a\n")
    assert bounded_files.read_yaml(tmp_path / "x.yaml") == {"a": [1], "b": [1]}
    (tmp_path / "x.yaml").write_text("# nothing\n")
    assert bounded_files.read_yaml(tmp_path / "x.yaml") is None
