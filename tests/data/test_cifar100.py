"""CIFAR-100's archive is unpickled without running anything that it asks for."""

from __future__ import annotations

import os
import pickle
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
