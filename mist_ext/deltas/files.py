"""A delta's file: safetensors, with positions as gaps. `docs/deltas.md` writes the layout down.

A file may come from anywhere. It is read in this order: its header within limits, its description, the sizes and dtypes
of all entries against the description, then the entries, and their digest.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mist_ext.deltas.change import Change
from mist_ext.deltas.digests import digest_of, join, tensor_digests
from mist_ext.deltas.tensors import DTYPES, bits, check_names
from mist_ext.kernels import ops
from mist_ext.kernels.checker import MOST_ENTRIES
from mist_ext.parameters import with_names
from mist_ext.system import memory
from mist_ext.system.files import write_atomically
from mist_ext.system.regular_files import opened, utf8_path

LAYOUT = 1
KEY = "mist_delta"  # of the one entry in the header's metadata
MOST_HEADER_BYTES = 2**23
_FIELDS = {"layout", "base_digest", "result_digest", "forward_only", "info", "tensors"}

Parts = tuple[dict[str, Change], str, str, dict[str, Any]]


def write(
    path: str | os.PathLike[str],
    changes: Mapping[str, Change],
    base_digest: str,
    result_digest: str,
    info: Mapping[str, Any],
) -> None:
    """Write a delta's file in one step that survives a crash.

    Raises
    ------
    ValueError
        If ``info`` is not what JSON can hold, or it or the names are too large, or a name is no UTF-8.
    OSError
        If it cannot be written.
    """
    positions = {name: change.positions.cpu() for name, change in changes.items() if change.positions is not None}
    codes = ops.encode_gaps(list(positions.values()))
    tensors = {f"positions/{name}": code for name, code in zip(positions, codes, strict=True)}
    for name, change in changes.items():
        for kind, values in (("old", change.old), ("new", change.new)):
            if values is not None:
                tensors[f"{kind}/{name}"] = values.detach().cpu().contiguous()
    description = {
        "layout": LAYOUT,
        "base_digest": base_digest,
        "result_digest": result_digest,
        "forward_only": any(change.old is None for change in changes.values()),
        "info": dict(info),
        "tensors": {
            name: {
                "dtype": str(change.dtype).removeprefix("torch."),
                "shape": list(change.shape),
                "entries": None if change.positions is None else change.entries,
            }
            for name, change in changes.items()
        },
    }
    try:
        content = json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"info cannot be written as JSON: {error}") from error
    if len(content) > MOST_HEADER_BYTES // 4:
        raise ValueError(f"info and names take {len(content)} bytes, expected at most {MOST_HEADER_BYTES // 4}")
    check_names(tensors)
    whole = save(tensors, {KEY: f"{_digest(content, tensors)} {content}"})
    (length,) = struct.unpack("<Q", whole[:8])
    if length > MOST_HEADER_BYTES:
        raise ValueError(
            f"the header for {len(changes)} tensors takes {length} bytes, expected at most {MOST_HEADER_BYTES}; "
            "make a delta of fewer tensors"
        )
    write_atomically(path, whole)


def read(path: str | os.PathLike[str]) -> Parts:
    """Return changes, digests and info of a delta's file.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    ValueError
        If it is damaged or of another layout; the message names the file, and the tensor.
    NotEnoughMemory
        If it is larger than the memory that is there.
    """
    path = Path(path)
    _check_header(path)
    try:
        with utf8_path(path) as name, safe_open(name, framework="pt") as file:
            digest, _, content = (file.metadata() or {}).get(KEY, "").partition(" ")
            if not content:
                raise ValueError(f"it has no {KEY!r} in its metadata")
            description = _described(content)
            expected = _expected(description)
            _check_entries(file, expected)
            tensors = {key: file.get_tensor(key).clone() for key in expected}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    try:
        if digest != _digest(content, tensors):
            raise ValueError("its content does not have its digest")
        changes = _changes(description["tensors"], tensors)
    except ValueError as error:
        raise _damaged(path, error) from error
    return changes, description["base_digest"], description["result_digest"], description["info"]


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return ValueError(f"{path} is no whole delta of layout {LAYOUT}: {reason}")


def _check_header(path: Path) -> None:
    """Raise ValueError where the header is larger than it may be, before anything is allocated for it."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise _damaged(path, ValueError(f"its header claims {length} bytes of {size}, at most {MOST_HEADER_BYTES}"))
    memory.require(2 * size, torch.device("cpu"), f"reading {path}", "free some, or give a smaller delta")


def _described(content: str) -> dict[str, Any]:
    """Return the description; ValueError where a field is missing, surplus, or not of its type."""
    description = json.loads(content, object_pairs_hook=_no_twins)
    if not isinstance(description, dict) or description.get("layout") != LAYOUT:
        found = description.get("layout") if isinstance(description, dict) else description
        raise ValueError(f"its layout is {str(found)[:40]!r}, expected {LAYOUT}")
    if odd := sorted(description.keys() ^ _FIELDS):
        raise ValueError(f"its description has a field {odd[0][:40]!r} too {'few' if odd[0] in _FIELDS else 'many'}")
    types = {"base_digest": str, "result_digest": str, "forward_only": bool, "info": dict, "tensors": dict}
    for field, kind in types.items():
        if not isinstance(description[field], kind):
            raise ValueError(f"{field!r} of its description is a {type(description[field]).__name__}")
    for name, about in description["tensors"].items():
        _check_about(name, about)
    return description


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:80]!r} stands twice")
    return made


def _check_about(name: str, about: Any) -> None:
    """Raise ValueError unless a tensor's dtype, shape and number of entries are possible ones."""
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "entries"}:
        raise ValueError(f"{name!r} is not described by dtype, shape and entries")
    dtype, shape, entries = about["dtype"], about["shape"], about["entries"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r} has dtype {str(dtype)[:40]!r}, expected one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise ValueError(f"{name!r} has a shape that is no list of up to 64 sizes")
    numel = math.prod(shape)
    if numel > MOST_ENTRIES:
        raise ValueError(f"{name!r} has {numel} entries, expected at most {MOST_ENTRIES}")
    if entries is not None and not (type(entries) is int and 0 <= entries <= numel):
        raise ValueError(f"{name!r} stores {str(entries)[:40]} entries, expected 0 to {numel}")


def _expected(description: Mapping[str, Any]) -> dict[str, tuple[torch.dtype, list[int] | None]]:
    """Return dtype and shape of each entry of the file by its name; a code's length is not known beforehand."""
    kinds = ("new",) if description["forward_only"] else ("old", "new")
    expected: dict[str, tuple[torch.dtype, list[int] | None]] = {}
    for name, about in description["tensors"].items():
        sparse = about["entries"] is not None
        if sparse:
            expected[f"positions/{name}"] = (torch.uint8, None)
        for kind in kinds:
            expected[f"{kind}/{name}"] = (DTYPES[about["dtype"]], [about["entries"]] if sparse else about["shape"])
    return expected


def _check_entries(file: Any, expected: Mapping[str, tuple[torch.dtype, list[int] | None]]) -> None:
    """Raise ValueError unless the file's entries are those that its description says; no value is looked at."""
    if odd := sorted(set(file.keys()) ^ expected.keys()):
        raise ValueError(f"its entry {odd[0][:120]!r} is {'missing' if odd[0] in expected else 'surplus'}")
    for key, (dtype, shape) in expected.items():
        entry = file.get_slice(key)
        found, kind = entry.get_shape(), entry.get_dtype()
        right = len(found) == 1 if shape is None else found == shape
        if not right or _SAFETENSORS.get(kind) != dtype:
            wanted = f"{dtype} {'[n]' if shape is None else shape}"
            raise ValueError(f"its entry {key[:120]!r} is {kind} {found}, expected {wanted}")


_SAFETENSORS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def _changes(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    """Return the changes; ValueError, with the tensor's name, for positions or values that cannot be."""
    sparse = [name for name, about in described.items() if about["entries"] is not None]
    codes = [tensors[f"positions/{name}"] for name in sparse]
    counts = [described[name]["entries"] for name in sparse]
    try:
        decoded = ops.decode_gaps(codes, counts, [math.prod(described[name]["shape"]) for name in sparse])
    except RuntimeError as error:
        raise ValueError(with_names(error, sparse)) from error
    positions = dict(zip(sparse, decoded, strict=True))
    changes = {}
    for name, about in described.items():
        shape, dtype = tuple(about["shape"]), DTYPES[about["dtype"]]
        old, new = tensors.get(f"old/{name}"), tensors[f"new/{name}"]
        for values in (old, new):
            if dtype == torch.bool and values is not None and bool((bits(values) > 1).any()):
                raise ValueError(f"{name!r} has values that are no bools")
        changes[name] = Change(shape, dtype, positions.get(name), old, new)
    return changes


def _digest(content: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of a file's description and entries."""
    entries = join(tensor_digests(tensors))
    return digest_of(content.encode("utf-8", "backslashreplace"), entries.encode())
