"""CIFAR-100's archive is unpickled without running anything that it asks for."""

from __future__ import annotations

import os
import pickle
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from mist_ext.data import load


@pytest.fixture
def root(tmp_path: Path) -> Path:
    miniatures.cifar100(tmp_path)
    return tmp_path


def test_images_and_labels_are_those_that_torchvision_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    source = load("cifar100", root)
    for part, train in ((source.train, True), (source.test, False)):
        theirs = CIFAR100(root, train=train)
        assert torch.equal(part.pixels, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
        assert part.labels.tolist() == theirs.targets
        assert list(source.class_names) == theirs.classes


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, np.load, getattr, torch.load])
def test_an_archive_that_calls_anything_is_refused_before_the_call(root: Path, function: Any) -> None:
    victim = root / "made"
    argument = f"__import__('os').mkdir({str(victim)!r})" if function is eval else str(victim)
    (root / "cifar-100-python" / "meta").write_bytes(pickle.dumps(Call(function, argument)))
    with pytest.raises(ValueError, match=r"meta is no file of CIFAR-100's archive \(it asks for .* not allowed"):
        load("cifar100", root)
    assert not victim.exists()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_is_named(root: Path, name: str) -> None:
    path = root / "cifar-100-python" / name
    whole = path.read_bytes()
    for damage in (b"", b"no pickle", whole[: len(whole) // 2], pickle.dumps([1]), pickle.dumps({"data": 1})):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=f"{path}.* get it anew"):
            load("cifar100", root)


def test_images_that_do_not_fit_the_labels_are_refused(root: Path) -> None:
    path = root / "cifar-100-python" / "train"
    content = pickle.loads(path.read_bytes(), encoding="bytes")
    path.write_bytes(pickle.dumps(content | {b"fine_labels": content[b"fine_labels"][:-1]}))
    with pytest.raises(ValueError, match=r"images of uint8 \[300, 3072\] and 299 labels"):
        load("cifar100", root)
    path.write_bytes(pickle.dumps(content | {b"fine_labels": [0] * 300}))
    with pytest.raises(ValueError, match="images of 1 classes, expected all 100"):
        load("cifar100", root)


def nested(depth: int, inner: bytes, outer: bytes) -> bytes:
    """A pickle of ``depth`` times ``inner``, each followed by ``outer``."""
    return b"\x80\x02" + inner * depth + outer * depth + b"."


def array(shape: Any, code: str = "u1", content: Any = b"", order: str = "|") -> Any:
    """A pickled array that says what it likes of itself."""
    kind = Pickled(np.dtype, (code, False, True), (3, order, None, None, None, -1, -1, 0))
    return Pickled(np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, shape, kind, False, content))


class Pickled:
    """Pickles as a call and a state."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


ATTACKS: dict[str, bytes] = {
    "a memo of 2 billion entries": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a text memo of 2 billion entries": b"Np2000000000\n.",
    "bytes of 2^62": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
    "a frame of 2^62": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",
    "tuples nested a million times as a key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "lists nested a million times": nested(1_000_000, b"]", b"a")[:-2] + b".",
    "an integer of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a persistent object": b"Pthing\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a set": b"\x80\x04\x8f.",
    "an array of objects": pickle.dumps({"data": array((2**40,), "O8")}),
    "an array of 2^60 bytes": pickle.dumps({"data": array((2**30, 2**30))}),
    "an array of negative size": pickle.dumps({"data": array((-1, 3072), content=b"x")}),
    "an array of no shape": pickle.dumps({"data": array("shape")}),
    "an array without a type": pickle.dumps({"data": Pickled(np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"))}),
    "an array made by the class itself": b"\x80\x02cnumpy\nndarray\n(J\0\0\0\x40U\x01OtR.",
    "a codec that doubles": b"c_codecs\nencode\n(U\x01xU\x03hextR.",
    "names that are lists of each other": pickle.dumps({"fine_label_names": [[[]] * 9] * 9}),
    "labels that are lists": pickle.dumps({"fine_label_names": ["a"], "fine_labels": [[0] * 9] * 9}),
    "labels that are huge": pickle.dumps({"fine_label_names": ["a"], "fine_labels": [2**2000]}),
    "an array as meta": pickle.dumps({"fine_label_names": np.zeros(3, np.uint8)}, protocol=2),
    "keys that are numbers": pickle.dumps({1: 2, None: 3}),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["train", "meta"])
def test_an_archive_that_would_fill_the_memory_or_crash_is_a_sentence(root: Path, attack: str, name: str) -> None:
    (root / "cifar-100-python" / name).write_bytes(ATTACKS[attack])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"(train|meta) is no file of CIFAR-100's archive .*; get it anew"):
        load("cifar100", root)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # kB


def test_only_regular_files_of_an_archive_are_read(root: Path) -> None:
    (root / "cifar-100-python" / "meta").unlink()
    os.mkfifo(root / "cifar-100-python" / "meta")
    with pytest.raises(OSError, match="meta is no regular file"):
        load("cifar100", root)


def test_mutated_files_are_read_or_refused(root: Path) -> None:
    folder = root / "cifar-100-python"
    draws = np.random.default_rng(0)
    for name in ("meta", "test"):
        whole = (folder / name).read_bytes()
        ends = np.r_[0:2000, len(whole) - 2000 : len(whole)] if name == "test" else np.arange(len(whole))
        for _ in range(150):
            data = bytearray(whole)
            for place in draws.choice(ends, draws.integers(1, 6)):
                data[place] = draws.integers(0, 256)
            (folder / name).write_bytes(data)
            with suppress(ValueError):
                load("cifar100", root)
        (folder / name).write_bytes(whole)
