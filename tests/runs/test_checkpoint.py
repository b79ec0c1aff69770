"""Checkpoints: what goes in comes out, half-written or damaged ones are never used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mist_ext.runs import checkpoint
from mist_ext.runs.checkpoint import CheckpointError


def state(number: int) -> dict:
    torch.manual_seed(number)
    shared = torch.randn(3, 4)
    return {
        "number": number,
        "nothing": None,
        "empty": [{}, [], ()],
        "position": (number, 2),
        "by_number": {0: {"momentum_buffer": torch.randn(5)}, 7: "seven"},
        "dtypes": [torch.arange(4, dtype=dtype) for dtype in (torch.uint8, torch.int32, torch.int64, torch.bfloat16)],
        "tied": [shared, shared],
        "part": shared[:, 1],
        "single": torch.tensor(0.5),
        "none": torch.zeros(0, 3),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def refuse(message: str) -> None:
    raise AssertionError(f"a warning: {message}")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "made", state(1))
    assert same(checkpoint.load_latest(tmp_path / "made", refuse), state(1))


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path / "nowhere", refuse) is None


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for number in range(12):
        checkpoint.save(tmp_path, state(number))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000011", "000012"]
    loaded = checkpoint.load_latest(tmp_path, refuse)
    assert loaded is not None
    assert loaded["number"] == 11


def damaged(kind: str, path: Path) -> None:
    content = (path / "state.json").read_text()
    tensors = bytearray((path / "tensors.safetensors").read_bytes())
    if kind == "a bit of a tensor":
        tensors[-3] ^= 1
        (path / "tensors.safetensors").write_bytes(tensors)
    elif kind == "half of the tensors":
        (path / "tensors.safetensors").write_bytes(tensors[: len(tensors) // 2])
    elif kind == "a digit of a number":
        (path / "state.json").write_text(content.replace('["number",2]', '["number",3]'))
    elif kind == "a missing file":
        (path / "state.json").unlink()
    else:
        (path / "checksums.json").write_text(json.dumps([1, 2]))


@pytest.mark.parametrize(
    "kind",
    ["a bit of a tensor", "half of the tensors", "a digit of a number", "a missing file", "other checksums"],
)
def test_a_damaged_one_is_named_and_the_one_before_it_used(kind: str, tmp_path: Path) -> None:
    first, second = (checkpoint.save(tmp_path, state(number)) for number in (1, 2))
    damaged(kind, second)
    said: list[str] = []
    assert same(checkpoint.load_latest(tmp_path, said.append), state(1))
    assert len(said) == 1
    assert str(second) in said[0]
    damaged("a bit of a tensor", first)
    with pytest.raises(CheckpointError, match=r"000001 is damaged .*start the run anew"):
        checkpoint.load_latest(tmp_path, said.append)


def test_what_an_interrupted_write_left_is_not_used_and_removed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    (tmp_path / ".000002.unfinished").mkdir()
    (tmp_path / ".000002.unfinished" / "tensors.safetensors").write_bytes(b"half")
    assert same(checkpoint.load_latest(tmp_path, refuse), state(1))
    checkpoint.save(tmp_path, state(2))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000001", "000002"]


def test_a_failed_write_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, state(2))
    assert same(checkpoint.load_latest(tmp_path, refuse), state(1))


def test_what_json_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/outer/1 is a set"):
        checkpoint.save(tmp_path, {"outer": [0, {1, 2}]})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"outer": {("a", 1): 0}}, r"/outer has the key \('a', 1\), a tuple"),
        ({"wide": torch.zeros(2, dtype=torch.complex128)}, "/wide is a tensor of torch.complex128"),
        ({"few": [torch.eye(3).to_sparse()]}, "/few/0 is a sparse tensor"),
        ({"nothing": torch.empty(3, device="meta")}, "/nothing is a meta tensor"),
    ],
    ids=["a key", "a dtype", "a sparse tensor", "a meta tensor"],
)
def test_what_could_not_be_loaded_again_is_refused_before_anything_is_written(
    state: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=message):
        checkpoint.check(state)
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "made", state)
    assert not (tmp_path / "made").exists()


def test_tensors_whose_names_would_be_the_same_stay_apart(tmp_path: Path) -> None:
    several = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2), "b'": torch.tensor(3)}, 1: [torch.tensor(4)]}
    several["1"] = {"0": torch.tensor(5)}
    checkpoint.save(tmp_path, several)
    assert same(checkpoint.load_latest(tmp_path, refuse), several)


def test_the_millionth_is_the_newest(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    (tmp_path / "000001").rename(tmp_path / "999999")
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.latest(tmp_path) == tmp_path / "1000000"
    assert same(checkpoint.load_latest(tmp_path, refuse), state(2))
    checkpoint.remove(tmp_path)
    assert not tmp_path.exists()
