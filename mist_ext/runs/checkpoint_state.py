"""The JSON of a checkpoint: nested containers of plain values, with names where tensors stand."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta, Struct
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from mist_ext.distributed.shard import Shard, is_sharded
from mist_ext.distributed.shard_files import ShardReader, TensorOnDisk


class Dict(Struct, array_like=True, tag="dict", forbid_unknown_fields=True):
    """Pairs, since JSON would turn a key that is a number into a string."""

    pairs: list[tuple[str | int, Node]]


class List(Struct, array_like=True, tag="list", forbid_unknown_fields=True):
    entries: list[Node]


class Tuple(Struct, array_like=True, tag="tuple", forbid_unknown_fields=True):
    entries: list[Node]


class Whole(Struct, array_like=True, tag="tensor", forbid_unknown_fields=True):
    """Stands for a tensor that is saved as a whole, under this name in the safetensors file."""

    name: str


class Part(Struct, array_like=True, tag="part", forbid_unknown_fields=True):
    """Stands for a tensor whose entries are spread over the ranks, each of which saves its own."""

    name: str
    total: Annotated[int, Meta(ge=0, le=2**48)]
    dtype: Literal["float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"]


class NotFinite(Struct, array_like=True, tag="float", forbid_unknown_fields=True):
    """A float that JSON has no number for."""

    text: Literal["nan", "inf", "-inf"]


Node = Dict | List | Tuple | Whole | Part | NotFinite | bool | int | float | str | None


def described(state: Mapping[Any, Any], tensors: dict[str, Tensor | TensorOnDisk]) -> Dict:
    """Describe a state; its tensors go to ``tensors`` under the names that stand in their place.

    Raises
    ------
    TypeError
        If it holds something else than a checkpoint can; the message names it.
    """
    described = _described(state, "", tensors)
    assert isinstance(described, Dict)
    return described


def _described(value: Any, name: str, tensors: dict[str, Tensor | TensorOnDisk]) -> Node:
    if isinstance(value, Tensor | TensorOnDisk):
        _require_storable(name, value)
        while name in tensors:  # {"a/b": one, "a": {"b": another}}
            name += "'"
        tensors[name] = value
        if isinstance(value, Shard | TensorOnDisk) or is_sharded(value):
            total = value.total if isinstance(value, Shard | TensorOnDisk) else value.numel()
            return Part(name, total, str(value.dtype).removeprefix("torch."))  # type: ignore[arg-type]
        return Whole(name)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(f"{name} has the key {key!r}, a {type(key).__name__}, which a checkpoint cannot hold")
        return Dict([(key, _described(entry, f"{name}/{key}", tensors)) for key, entry in value.items()])
    if isinstance(value, list | tuple):
        entries = [_described(entry, f"{name}/{i}", tensors) for i, entry in enumerate(value)]
        return Tuple(entries) if isinstance(value, tuple) else List(entries)
    if isinstance(value, float) and not math.isfinite(value):
        return NotFinite(str(float(value)))  # type: ignore[arg-type]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _require_storable(name: str, tensor: Tensor | TensorOnDisk) -> None:
    kind = "" if isinstance(tensor, TensorOnDisk) or tensor.layout is torch.strided else "sparse "
    kind = "meta " if isinstance(tensor, Tensor) and tensor.is_meta else kind
    if kind or not _has_form(tensor.dtype):
        raise TypeError(f"{name} is a {kind}tensor of {tensor.dtype}, which a checkpoint cannot hold")


@functools.cache
def _has_form(dtype: torch.dtype) -> bool:
    """Return whether a safetensors file can hold a dtype."""
    try:
        save({"": torch.empty(0, dtype=dtype)})
    except (KeyError, RuntimeError, SafetensorError):  # RuntimeError: of a quantised one there is no empty one
        return False
    return True


def restored(tree: Dict, tensors: Mapping[str, Tensor], shards: ShardReader | None) -> dict[str, Any]:
    """Return the state that a tree and its tensors describe.

    Parameters
    ----------
    tree : Dict
    tensors : mapping of str to Tensor
        Each of which must stand in the tree.
    shards : ShardReader or None
        Of the tensors that ranks share out.

    Raises
    ------
    ValueError
        If tree and tensors do not fit together.
    """
    used: set[str] = set()
    try:
        state = _restored(tree, tensors, shards, used)
    except RecursionError as error:
        raise ValueError("its state is nested too deeply") from error
    if surplus := sorted(tensors.keys() - used):
        raise ValueError(f"its tensor {surplus[0]!r} stands nowhere in its state")
    return state


def _restored(node: Node, tensors: Mapping[str, Tensor], shards: ShardReader | None, used: set[str]) -> Any:
    if isinstance(node, Dict):
        return {key: _restored(entry, tensors, shards, used) for key, entry in node.pairs}
    if isinstance(node, List | Tuple):
        entries = [_restored(entry, tensors, shards, used) for entry in node.entries]
        return tuple(entries) if isinstance(node, Tuple) else entries
    if isinstance(node, Whole):
        if node.name not in tensors:
            raise ValueError(f"its state names the tensor {node.name!r}, which is not there")
        used.add(node.name)
        return tensors[node.name]
    if isinstance(node, Part):
        if shards is None or shards.totals.get(node.name) != node.total:
            raise ValueError(f"its state names {node.total} entries of {node.name!r}, which are not in its shards")
        return TensorOnDisk(shards, node.name, node.total, getattr(torch, node.dtype))
    return float(node.text) if isinstance(node, NotFinite) else node
