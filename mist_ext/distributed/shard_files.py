"""Shards of tensors in safetensors files, by `torch.distributed.checkpoint`; nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.shard import Shard, is_sharded, local


def write(folder: Path, shards: Mapping[str, Shard]) -> None:
    """Write every rank's shards to a folder that all ranks see.

    All ranks call this together, with the same names.

    Raises
    ------
    OSError
        On every rank, if one of them cannot write.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _single_process_is_meant():
            checkpoint.save(dict(shards), storage_writer=writer)
    except checkpoint.CheckpointException as error:  # of all ranks that failed, with their tracebacks
        rank, (failure, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank} cannot write to {folder}: {failure}") from error


class ShardReader:
    """Reads what `write` left in a folder, with any number of ranks, each for itself.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    totals : dict of str to int
        The number of entries of each tensor.

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

    def read_into(self, name: str, shard: Shard) -> None:
        """Fill a shard of a tensor, whatever the shards that it was written in."""
        from torch.distributed import checkpoint

        with _single_process_is_meant():
            checkpoint.load({name: shard}, storage_reader=self._reader, no_dist=True)


class TensorOnDisk:
    """A flattened tensor that was written in shards; a slice of it is read when it is asked for.

    Parameters
    ----------
    shards : ShardReader
    name : str
    total : int
        The number of its entries.
    dtype : torch.dtype
    """

    def __init__(self, shards: ShardReader, name: str, total: int, dtype: torch.dtype) -> None:
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
def _single_process_is_meant() -> Iterator[None]:
    """Silence torch's warning that a single process reads or writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*assuming the intent is to (load|save) in a single process")
        yield


def entries_of(saved: Tensor | TensorOnDisk, first: int = 0, count: int | None = None) -> Tensor:
    """Return a range of a saved tensor's entries, flattened.

    The tensor may be a whole one, one on disk, or a `Shard` of exactly that range.

    Raises
    ------
    ValueError
        If it has too few entries, or is the shard of another range.
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
    if not isinstance(saved, Tensor | TensorOnDisk):
        raise ValueError(f"a saved state is a {type(saved).__name__}, expected a tensor")
    entries = saved if isinstance(saved, TensorOnDisk) else saved.reshape(-1)
    part = entries[first : None if count is None else first + count]
    if count not in (None, len(part)):
        raise ValueError(f"a saved state has {total(saved)} entries, expected {first + count} or more")
    return part


def total(saved: Tensor | TensorOnDisk) -> int:
    """Return the number of entries of a saved tensor, or of the whole one that it is a shard of."""
    return saved.total if isinstance(saved, Shard | TensorOnDisk) else saved.numel()


def check_entries(name: str, saved: Tensor | TensorOnDisk, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise ValueError unless what was saved has as many entries as a tensor, and its dtype or a given one."""
    dtype = dtype or tensor.dtype
    if (total(saved), saved.dtype) != (tensor.numel(), dtype):
        raise ValueError(
            f"a saved state has {total(saved)} entries of {saved.dtype} for {name!r}, expected {tensor.numel()} of "
            f"{dtype}"
        )


@torch.no_grad()
def fill_(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor | TensorOnDisk]) -> None:
    """Copy saved values into the tensors of the same names, sharded or not; ValueError for other sizes or dtypes."""
    for name, tensor in tensors.items():
        check_entries(name, saved[name], tensor)
        own = local(tensor)
        first = Shard.of(name, tensor).first if is_sharded(tensor) else 0
        own.copy_(entries_of(saved[name], first, own.numel()).view(own.shape))


@torch.no_grad()
def gather_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather whole tensors on the CPU, one after the other: all on rank 0 of their mesh, sharded ones nowhere else."""
    gathered = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        if not is_sharded(tensor) or tensor.device_mesh.get_rank() == 0:  # type: ignore[attr-defined]
            gathered[name] = whole.detach().cpu()
    return gathered
