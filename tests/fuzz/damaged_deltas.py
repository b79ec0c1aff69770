"""Damaged files of deltas: each is an error, or the whole delta; with its digest mended, one that harms no model."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import mutations
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mist_ext.deltas import TaskDelta, files, state_digest

FILE = "a.delta"


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "w": torch.randn(40, 30),
        "b": torch.randn(50).bfloat16(),
        "far": torch.zeros(3000, dtype=torch.int8),
        "flags": torch.zeros(9, dtype=torch.bool),
        "n": torch.tensor(3),
    }


def tuned() -> dict[str, Tensor]:
    after = state()
    after["w"].view(-1)[::20] += 1
    after["w"][2, 3] = float("nan")
    after["b"] += 1
    after["far"][[3, 2000]] = 1  # a gap that has no room in a byte
    after["flags"][2] = True
    after["n"] += 1
    return after


def make(folder: Path) -> None:
    TaskDelta.between(state(), tuned(), info={"task": 1, "classes": ["a", "b"]}).save(folder / FILE)


def damage(draw: random.Random, content: bytes) -> bytes:
    """Damage the bytes, the header, or what the description says."""
    if draw.randrange(2):
        return mutations.of_safetensors(draw, content)
    header, data = _parts(content)
    digest, _, description = header["__metadata__"][files.KEY].partition(" ")
    damaged = mutations.of_json(draw, description.encode()).decode("utf-8", "replace")
    header["__metadata__"][files.KEY] = f"{digest} {damaged}"
    return _joined(header, data)


def read(folder: Path) -> None:
    """Load it; what is no error must be the whole delta."""
    loaded = TaskDelta.load(folder / FILE)
    if loaded != TaskDelta.between(state(), tuned(), info={"task": 1, "classes": ["a", "b"]}):
        raise AssertionError("another delta was loaded without an error")


def fit(folder: Path) -> None:
    """Make the digest of a damaged file fit, where it still can be read."""
    content = (folder / FILE).read_bytes()
    try:
        header, data = _parts(content)
        description = header["__metadata__"][files.KEY].partition(" ")[2]
        header["__metadata__"][files.KEY] = f"{files._digest(description, load(content))} {description}"
        mended = _joined(header, data)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError, SafetensorError):
        return
    (folder / FILE).write_bytes(mended)


def use(folder: Path) -> None:
    """Load it, and apply it: all is changed and can be undone, or nothing is."""
    loaded = TaskDelta.load(folder / FILE)
    model = state()
    digest = state_digest(model)
    try:
        loaded.apply_(model)
    except ValueError:
        pass
    else:
        if not loaded.forward_only:
            loaded.undo_(model)
    if not loaded.forward_only and state_digest(model) != digest:
        raise AssertionError("a model was changed by half")


def _parts(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
