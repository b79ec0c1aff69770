"""A delta's file is checked from end to end; what is wrong is named, with the file, and nothing large is allocated."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from mist_ext.deltas import TaskDelta, files

Description = dict[str, Any]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    before = {"w": torch.zeros(50, 40), "b": torch.zeros(9), "flag": torch.zeros(3, dtype=torch.bool)}
    after = {"w": before["w"].clone(), "b": before["b"] + 1, "flag": torch.tensor([False, True, False])}
    after["w"].view(-1)[::100] = torch.arange(20.0) + 1
    TaskDelta.between(before, after).save(tmp_path / "a.delta")
    return tmp_path / "a.delta"


def rewritten(file: Path, change: Callable[[Description, Tensors], object]) -> None:
    """The file with another description or other tensors, and a digest that fits them."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    description, tensors = json.loads(metadata[files.KEY].partition(" ")[2]), load(content)
    change(description, tensors)
    text = json.dumps(description)
    file.write_bytes(save(tensors, {files.KEY: f"{files._digest(text, tensors)} {text}"}))


def field(*path: str, value: Any) -> Callable[[Description, Tensors], object]:
    def change(description: Description, _: Tensors) -> None:
        for key in path[:-1]:
            description = description[key]
        description[path[-1]] = value

    return change


def tensor(name: str, value: torch.Tensor) -> Callable[[Description, Tensors], object]:
    return lambda _, tensors: tensors.update({name: value})


CODE = torch.tensor([0] + [99] * 19, dtype=torch.uint8)
WRONG: list[tuple[Callable[[Description, Tensors], object], str]] = [
    (field("layout", value=2), r"its layout is '2', expected 1"),
    (field("later", value=2), r"its description has a field 'later' too many"),
    (lambda d, _: d.pop("info"), r"its description has a field 'info' too few"),
    (field("info", value=3), r"'info' of its description is a int"),
    (field("tensors", "w", "dtype", value="float31"), r"'w' has dtype 'float31', expected one of float64"),
    (field("tensors", "w", "dtype", value="float16"), r"entry 'old/w' is F32 \[20\], expected torch.float16 \[20\]"),
    (field("tensors", "w", "shape", value=[2**40, 2**40]), r"'w' has \d+ entries, expected at most 2147483647"),
    (field("tensors", "w", "shape", value=[-50, -40]), r"'w' has a shape that is no list of up to 64 sizes"),
    (field("tensors", "w", "shape", value=[1900]), r"code\[0\] \('w'\) holds a position beyond 1899"),
    (field("tensors", "b", "shape", value=[2**31 - 1]), r"entry 'old/b' is F32 \[9\], expected .* \[2147483647\]"),
    (field("tensors", "w", "entries", value=21), r"entry 'old/w' is F32 \[20\], expected torch.float32 \[21\]"),
    (field("tensors", "w", "entries", value=2001), r"'w' stores 2001 entries, expected 0 to 2000"),
    (field("tensors", "w", "entries", value=True), r"'w' stores True entries"),
    (field("tensors", "w", value=[]), r"'w' is not described by dtype, shape and entries"),
    (field("tensors", value={}), r"its entry 'new/b' is surplus"),
    (field("forward_only", value=True), r"its entry 'old/b' is surplus"),
    (lambda _, tensors: tensors.pop("positions/w"), r"its entry 'positions/w' is missing"),
    (tensor("positions/w", CODE[:19].clone()), r"code\[0\] \('w'\) has 19 bytes, too few for 20 positions"),
    (tensor("positions/w", torch.cat([CODE, CODE])), r"code\[0\] \('w'\) is not as long as 20 positions"),
    (tensor("positions/w", CODE + 10), r"holds a position beyond 1999"),
    (tensor("positions/w", CODE.int()), r"entry 'positions/w' is I32 \[20\], expected torch.uint8 \[n\]"),
    (
        tensor("new/flag", torch.tensor([2], dtype=torch.uint8).view(torch.bool)),
        r"('flag' has values that are no bools|its content does not have its digest)",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_named_with_the_file(file: Path, change: Callable, message: str) -> None:
    TaskDelta.load(file)
    rewritten(file, change)
    with pytest.raises(ValueError, match=rf"a\.delta is no whole delta of layout 1: .*{message}"):
        TaskDelta.load(file)


def test_a_file_that_is_another_or_damaged_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for content, message in (
        (b"", "its header claims 0 bytes of 0"),
        (struct.pack("<Q", 2**62) + whole[8:], "its header claims 4611686018427387904 bytes"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "content does not have its digest|no bools"),
        (whole[:-3], "no whole delta"),
        (save({"w": torch.zeros(3)}), "it has no 'mist_delta' in its metadata"),
        (save({}, {files.KEY: "0 " + "[" * 100_000}), "nested too deeply"),
        (save({}, {files.KEY: '0 {"layout": 1, "layout": 1}'}), "'layout' stands twice"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            TaskDelta.load(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        TaskDelta.load(file)
    os.mkfifo(file)
    with pytest.raises(OSError, match="is no regular file"):
        TaskDelta.load(file)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"w": torch.zeros(9)}
    delta = TaskDelta.between({"\ud800": before["w"]}, {"\ud800": before["w"] + 1})
    with pytest.raises(ValueError, match=r"is named 'old/\\ud800', which a safetensors file cannot hold; rename it"):
        delta.save(tmp_path / "a.delta")
    monkeypatch.setattr(files, "MOST_HEADER_BYTES", 24_000)
    many = {f"w{number}": torch.zeros(8) for number in range(99)}
    delta = TaskDelta.between(many, {name: torch.eye(8)[0] for name in many})
    with pytest.raises(ValueError, match=r"the header for 99 tensors takes \d+ bytes, expected at most 24000"):
        delta.save(tmp_path / "a.delta")
    assert not list(tmp_path.iterdir())


def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(file: Path) -> None:
    whole = file.read_bytes()
    delta = TaskDelta.load(file)
    for info, message in ({"x": {1, 2}}, "info cannot be written"), ({"x": "y" * 2**22}, "info and names take"):
        delta.info = info
        with pytest.raises(ValueError, match=message):
            delta.save(file)
    assert file.read_bytes() == whole
    assert list(file.parent.iterdir()) == [file]
