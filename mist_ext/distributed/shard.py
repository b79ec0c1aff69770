"""Tensors that FSDP2 has sharded by rows: each rank has a range of the flattened tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which this rank has a part."""
    return hasattr(tensor, "to_local")  # DTensor's module takes long to import


def local(tensor: Tensor) -> Tensor:
    """Return this rank's rows of a sharded tensor, in its memory, or a tensor that is not sharded as it is."""
    if not is_sharded(tensor):  # every step asks that of every tensor, and entering no_grad takes longer
        return tensor
    with torch.no_grad():  # in which no copy is made for autograd
        return tensor.to_local()  # type: ignore[attr-defined]


def shard_like(values: Tensor, tensor: Tensor) -> Tensor:
    """Return values that every rank has, sharded as another tensor is; unchanged where that one is not sharded."""
    if not is_sharded(tensor):
        return values
    from torch.distributed.tensor import DTensor

    part, own = Shard.of("a tensor", tensor), local(tensor)
    rows = values.reshape(-1)[part.first : part.first + len(part)].view(own.shape).to(own.device, copy=True)
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    return DTensor.from_local(rows, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())


class Shard(Tensor):
    """A range of a flattened tensor, which `torch.distributed.checkpoint` writes and reads as a shard.

    It has one dimension and shares memory with the values that it was made of; an operation on it gives a plain tensor.

    Parameters
    ----------
    values : Tensor
        Any shape and dtype; the range's entries.
    first : int
        The position in the whole tensor of the range's entry 0.
    total : int
        The number of entries of the whole tensor.
    """

    first: int
    total: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, values: Tensor, first: int, total: int) -> Shard:
        part = values.detach().reshape(-1).as_subclass(cls)
        part.first, part.total = first, total
        return part

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> Shard:
        """Return this rank's part of a sharded tensor.

        Raises
        ------
        ValueError
            If it is not sharded by rows over a mesh of one dimension; the message has its name.
        """
        mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
        if len(placements) != 1 or not placements[0].is_shard(0):
            raise ValueError(
                f"{name!r} is sharded as {placements} over a mesh of {tuple(mesh.shape)}, expected by rows over a mesh "
                "of one dimension: fully_shard(module, mesh=init_device_mesh(device, (ranks,)))"
            )
        longest = -(-tensor.shape[0] // mesh.size())
        before = min(longest * mesh.get_local_rank(), tensor.shape[0])
        return cls(local(tensor), before * math.prod(tensor.shape[1:]), tensor.numel())

    @property
    def entries(self) -> Tensor:
        """The range's entries, as a plain tensor."""
        return self.as_subclass(Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shard:
        return memo.setdefault(id(self), Shard(self.entries.clone(), self.first, self.total))

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return Shard, (self.entries, self.first, self.total)

    # The protocol of torch.distributed.checkpoint (torch.distributed._checkpointable).

    def size(self, dim: int | None = None) -> Any:
        """Return the whole tensor's size, as a DTensor does."""
        return torch.Size([self.total]) if dim is None else self.total

    def __create_write_items__(self, fqn: str, _: object) -> list[Any]:
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        whole, properties = torch.Size([self.total]), TensorProperties.create_from_tensor(self.entries)
        items = []
        for chunk in self.__create_chunk_list__():
            data = TensorWriteData(chunk, properties, whole)
            items.append(WriteItem(MetadataIndex(fqn, chunk.offsets), WriteItemType.SHARD, tensor_data=data))
        return items

    def __create_chunk_list__(self) -> list[Any]:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        own = self.entries
        return [ChunkStorageMetadata(torch.Size([self.first]), own.shape)] if len(own) else []

    def __get_tensor_shard__(self, index: object) -> Tensor:
        return self.entries
