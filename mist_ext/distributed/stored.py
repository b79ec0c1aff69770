"""Parts of tensors on the disk, by `torch.distributed.checkpoint`: safetensors files, of which nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.shard import Shard, is_sharded, local


def write(folder: Path, parts: Mapping[str, Shard]) -> None:
    """Write every rank's parts to a folder that all ranks see; all call this at once, with the same names.

    Raises
    ------
    OSError
        On every rank, if one of them cannot write.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _alone_or_not():
            checkpoint.save(dict(parts), storage_writer=writer)
    except checkpoint.CheckpointException as error:  # of all ranks that failed, with their tracebacks
        rank, (failure, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank} cannot write to {folder}: {failure}") from error


class Shards:
    """What `write` left in a folder, read by any number of ranks, each for itself.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    totals : dict of str to int
        The entries of each tensor.

    Raises
    ------
    ValueError
        If the headers of its files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        from torch.distributed.checkpoint import HuggingFaceStorageReader

        self._reader = HuggingFaceStorageReader(str(folder))
        from safetensors import SafetensorError  # which optimisers do without

        try:
            metadata = self._reader.read_metadata()
            entries: Mapping[str, Any] = metadata.state_dict_metadata
            self.totals = {name: entry.size.numel() for name, entry in entries.items()}
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"the headers in {folder} cannot be read: {error!r}") from error
        self._reader.read_metadata = lambda: metadata  # type: ignore[method-assign] # the headers are read once

    def read_into(self, name: str, part: Shard) -> None:
        """Fill a part of a tensor, whatever the parts that it was written in."""
        from torch.distributed import checkpoint

        with _alone_or_not():
            checkpoint.load({name: part}, storage_reader=self._reader, no_dist=True)


class Stored:
    """A tensor that was written in parts, flattened; slices of it are read when they are asked for.

    Parameters
    ----------
    shards : Shards
    name : str
    total : int
        Its entries.
    dtype : torch.dtype
    """

    def __init__(self, shards: Shards, name: str, total: int, dtype: torch.dtype) -> None:
        self.shards = shards
        self.name = name
        self.total = total
        self.dtype = dtype

    def __getitem__(self, wanted: slice) -> Tensor:
        first, last, _ = wanted.indices(self.total)
        values = torch.empty(max(last - first, 0), dtype=self.dtype)
        self.shards.read_into(self.name, Shard(values, first, self.total))
        return values


@contextmanager
def _alone_or_not() -> Iterator[None]:
    """Within it, torch does not warn that a single process reads or writes, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*assuming the intent is to (load|save) in a single process")
        yield


def taken(saved: Tensor | Stored, first: int = 0, count: int | None = None) -> Tensor:
    """Some entries of a tensor that was saved: of a whole one, of one in parts, or of a `Shard` that has just these.

    Raises
    ------
    ValueError
        If it has not as many entries, or is a part that has other ones.
    """
    if isinstance(saved, Shard):
        wanted = saved.total - first if count is None else count
        if (saved.first, len(saved)) != (first, wanted):
            raise ValueError(
                f"a saved state has entries {saved.first} to {saved.first + len(saved)} of {saved.total}, expected "
                f"{first} to {first + wanted}: it is that of another rank, or of another number of ranks; give what "
                "checkpoint.load_latest returns"
            )
        return saved.entries
    if not isinstance(saved, Tensor | Stored):
        raise ValueError(f"a saved state is a {type(saved).__name__}, expected a tensor")
    entries = saved if isinstance(saved, Stored) else saved.reshape(-1)
    part = entries[first : None if count is None else first + count]
    if count not in (None, len(part)):
        raise ValueError(f"a saved state has {total(saved)} entries, expected {first + count} or more")
    return part


def total(saved: Tensor | Stored) -> int:
    """The entries of a tensor that was saved, or of the whole one that it is a part of."""
    return saved.total if isinstance(saved, Shard | Stored) else saved.numel()


def check_entries(name: str, saved: Tensor | Stored, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise ValueError unless what was saved has as many entries as a tensor, and its dtype or a given one."""
    total = saved.total if isinstance(saved, Shard | Stored) else saved.numel()
    dtype = dtype or tensor.dtype
    if (total, saved.dtype) != (tensor.numel(), dtype):
        raise ValueError(
            f"a saved state has {total} entries of {saved.dtype} for {name!r}, expected {tensor.numel()} of {dtype}"
        )


@torch.no_grad()
def fill_(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor | Stored]) -> None:
    """Give tensors, sharded or not, the values that were saved under their names; ValueError for other sizes."""
    for name, tensor in tensors.items():
        check_entries(name, saved[name], tensor)
        own = local(tensor)
        first = Shard.of(name, tensor).first if is_sharded(tensor) else 0
        own.copy_(taken(saved[name], first, own.numel()).view(own.shape))


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the host, brought together one after the other: all on rank 0 of their mesh, none elsewhere."""
    together = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        if not is_sharded(tensor) or tensor.device_mesh.get_rank() == 0:  # type: ignore[attr-defined]
            together[name] = whole.detach().cpu()
    return together
