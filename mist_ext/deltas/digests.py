"""Digests of tensors: whether a model is, bit for bit, the one that a delta was made for."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.deltas.tensors import tensors_of


def state_digest(state: nn.Module | Mapping[str, Tensor]) -> str:
    """Return a digest of a state dict's names, dtypes, shapes and bits, whatever the order of its entries.

    Parameters
    ----------
    state : Module or mapping of str to Tensor
        Of a module, the tensors of its ``state_dict()``. On any device; about 1 GB a second and thread.

    Returns
    -------
    str
        32 hexadecimal digits: of the names, ascending, each with its `tensor_digest`.

    Raises
    ------
    ValueError
        If a tensor is sharded, not dense, or of a dtype without a plain representation; the message names it.
    """
    return join(tensor_digests(tensors_of(state)))


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the `tensor_digest` of each tensor, on as many threads as torch uses."""
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # hashing releases the interpreter's lock
        return dict(zip(tensors, pool.map(tensor_digest, tensors.values()), strict=True))


def join(digests: Mapping[str, str]) -> str:
    """Return the digest of a state dict whose tensors have these digests, so that one tensor's can be replaced."""
    lines = (f"{name!r} {digests[name]}\n" for name in sorted(digests))
    return digest_of("".join(lines).encode("utf-8", "backslashreplace"))


def tensor_digest(tensor: Tensor) -> str:
    """Return a digest of a tensor's dtype, shape and bits: 32 hexadecimal digits."""
    values = tensor.detach().cpu().contiguous()
    return digest_of(f"{tensor.dtype} {list(tensor.shape)}".encode(), _memory(values))


def digest_of(*parts: Any) -> str:
    """Return the BLAKE2b digest of some buffers, one after the other: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _memory(tensor: Tensor) -> Any:
    """Return the bytes of a contiguous tensor on the CPU as a buffer, for as long as the tensor is held."""
    size = tensor.numel() * tensor.element_size()
    return (ctypes.c_char * size).from_address(tensor.data_ptr()) if size else b""
