"""What all ranks of a data-parallel training must have alike, and the error where they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mist_ext.optim.sparse import SparseOptimizer


@torch.no_grad()
def facts(optimizer: SparseOptimizer, steps: list[int], wire: torch.dtype, reduce: str) -> dict[str, Any]:
    """Return what all ranks must have in common, under the names that errors use."""
    selection = optimizer.selection
    sharded = selection.shards  # each rank has its own rows of these
    known: dict[str, Any] = {
        "the optimiser": type(optimizer).__name__,
        "seed": optimizer.seed,
        "wire": str(wire),
        "reduce": reduce,
    }
    for number, group in enumerate(optimizer.param_groups):
        known[f"step of group {number}"] = steps[number]
        options = {name: value for name, value in group.items() if isinstance(value, float | int | tuple | str)}
        known |= {f"{name} of group {number}": value for name, value in options.items()}
        params = zip(group["param_names"], group["params"], strict=True)
        known |= {f"shape and dtype of {name!r}": f"{list(p.shape)} {p.dtype}" for name, p in params}
    for name, index in selection.items():
        known[f"ordinal of {name!r}"] = selection.ordinal[name]
        if name in sharded:
            continue
        values = b"all" if index is None else index.cpu().numpy().tobytes()
        known[f"a digest of the selection of {name!r}"] = hashlib.blake2b(values, digest_size=6).hexdigest()
    for group in optimizer.param_groups:
        whole = {name: p for name, p in zip(group["param_names"], group["params"], strict=True) if name not in sharded}
        bits = [_sum_of_bits(p) for p in whole.values()]
        sums = torch.stack(bits).tolist() if bits else []
        known |= {f"a checksum of {name!r}": value for name, value in zip(whole, sums, strict=True)}
    return known


def refuse_differences(by_rank: list[Mapping[str, Any]]) -> None:
    """Raise RuntimeError with the first difference unless all ranks' facts are those of rank 0."""
    for rank, theirs in enumerate(by_rank):
        for fact in {**by_rank[0], **theirs}:
            zero, other = (known.get(fact, "missing") for known in (by_rank[0], theirs))
            if zero != other:
                raise RuntimeError(
                    f"the ranks differ: {fact} is {zero} on rank 0, but {other} on rank {rank}; make the same "
                    "model, selection and optimiser on every rank"
                )


def _sum_of_bits(parameter: Tensor) -> Tensor:
    """Return a checksum of a parameter: the sum of its bits, read as integers."""
    flat = parameter.detach().view(-1)
    eight_bytes = flat.numel() * flat.element_size() % 8 == 0 and flat.data_ptr() % 8 == 0
    if eight_bytes:  # which torch adds up far faster than shorter integers
        return flat.view(torch.int64).sum()
    return flat.view({2: torch.int16, 4: torch.int32}[flat.element_size()]).sum(dtype=torch.int64)
