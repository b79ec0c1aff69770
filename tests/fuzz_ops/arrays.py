"""Arguments of a call as NumPy arrays, and as tensors in the midst of larger memory whose bytes are watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Call = dict[str, Any]  # by an op's argument: Array, numbers, lists of these, None

# NumPy has no bfloat16: its bits are kept.
KINDS: dict[str, tuple[Any, torch.dtype]] = {
    "float32": (np.float32, torch.float32),
    "float16": (np.float16, torch.float16),
    "bfloat16": (np.uint16, torch.bfloat16),
    "int32": (np.int32, torch.int32),
    "int64": (np.int64, torch.int64),
    "uint8": (np.uint8, torch.uint8),
    "bool": (np.bool_, torch.bool),
}
BEFORE, BEHIND, CANARY = 37, 64, 77  # entries around a tensor, and each byte of them


@dataclass
class Array:
    """Values of one dtype."""

    kind: str
    values: np.ndarray  # bfloat16 as its bits

    @classmethod
    def of(cls, kind: str, values: Any, shape: tuple[int, ...] | None = None) -> Array:
        """float32 values rounded to the nearest of the dtype; others as they are."""
        array = np.asarray(values)
        if kind == "bfloat16":
            bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
            rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even
            array = np.where(np.isnan(array), 0x7FC0, rounded)
        array = np.ascontiguousarray(array, KINDS[kind][0])
        return cls(kind, array if shape is None else array.reshape(shape))

    def flat(self) -> np.ndarray:
        """One-dimensional; floating numbers as float32."""
        if self.kind == "bfloat16":
            return (self.values.reshape(-1).astype(np.uint32) << 16).view(np.float32)
        flat = self.values.reshape(-1)
        return flat.astype(np.float32) if flat.dtype.kind == "f" else flat

    def like(self, flat: np.ndarray) -> Array:
        """The same dtype and shape with other values."""
        return Array.of(self.kind, flat, self.values.shape)

    def __len__(self) -> int:
        return self.values.size

    def bits(self) -> bytes:
        """The dtype and all bytes, with one NaN for all: which it is means nothing."""
        raw = self.values.reshape(-1)
        if "float" in self.kind:
            nan = self.like(np.full(len(self), np.nan, np.float32)).values.reshape(-1)
            raw = np.where(np.isnan(self.flat()), nan, raw)
        return self.kind.encode() + raw.tobytes()


def placed(value: Any) -> Any:
    """Arrays as tensors, off every alignment and amid bytes that nobody may change."""
    if isinstance(value, list):
        return [placed(item) for item in value]
    if not isinstance(value, Array):
        return value
    size = len(value)
    memory = np.full((BEFORE + size + BEHIND) * value.values.itemsize, CANARY, np.uint8)
    memory.view(value.values.dtype)[BEFORE : BEFORE + size] = value.values.reshape(-1)
    whole = torch.from_numpy(memory).view(KINDS[value.kind][1])
    return whole[BEFORE : BEFORE + size].view(value.values.shape)


def read(tensor: Tensor) -> Array:
    """What a tensor holds."""
    kind = next(kind for kind, (_, dtype) in KINDS.items() if dtype == tensor.dtype)
    bits = tensor.detach().contiguous().view(-1)
    raw = bits.view(torch.uint16) if kind == "bfloat16" else bits
    return Array(kind, raw.numpy().copy().reshape(tuple(tensor.shape)))


def tensors(arguments: Call) -> list[Tensor]:
    """All that a call is given."""
    values = [item for value in arguments.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Tensor)]


def memory(tensor: Tensor) -> np.ndarray:
    """All bytes of a tensor's storage, what lies around it included."""
    if tensor.is_meta:
        return np.zeros(0, np.uint8)
    with torch.inference_mode():
        return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().copy()


def surroundings(tensor: Tensor) -> bytes:
    """The bytes around a placed tensor."""
    whole, begin = memory(tensor), tensor.storage_offset() * tensor.element_size()
    return whole[:begin].tobytes() + whole[begin + tensor.numel() * tensor.element_size() :].tobytes()
