"""Tensors that the ranks share out among them by rows (FSDP2), so that each has a range of the flattened tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which this rank has a part."""
    return hasattr(tensor, "to_local")  # DTensor's module takes long to import


def local(tensor: Tensor) -> Tensor:
    """This rank's rows, with the memory that they have in the tensor; a tensor that is not sharded itself."""
    if not is_sharded(tensor):  # every step asks that of every tensor, and entering no_grad takes longer
        return tensor
    with torch.no_grad():  # in which no copy is made for autograd
        return tensor.to_local()  # type: ignore[attr-defined]


def alike(values: Tensor, tensor: Tensor) -> Tensor:
    """Values of a whole tensor, which every rank has, sharded as another tensor is; themselves where it is not."""
    if not is_sharded(tensor):
        return values
    from torch.distributed.tensor import DTensor

    part, own = Shard.of("a tensor", tensor), local(tensor)
    rows = values.reshape(-1)[part.first : part.first + len(part)].view(own.shape).to(own.device, copy=True)
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    return DTensor.from_local(rows, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())


class Shard(Tensor):
    """A rank's range of a flattened tensor, which `torch.distributed.checkpoint` writes and reads as a shard.

    One-dimensional, with the memory of the entries that it was made of. What is computed from it is a plain tensor.

    Parameters
    ----------
    values : Tensor
    first : int
        The entry of the whole tensor that is entry 0 here.
    total : int
        The entries of the whole tensor.
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
        """This rank's part of a sharded tensor.

        Raises
        ------
        ValueError
            If it is sharded otherwise than by rows over all ranks of a mesh; the message has its name.
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
        """This rank's, as a plain tensor."""
        return self.as_subclass(Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shard:
        return memo.setdefault(id(self), Shard(self.entries.clone(), self.first, self.total))

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return Shard, (self.entries, self.first, self.total)

    # What torch.distributed.checkpoint asks a tensor for (torch.distributed._checkpointable).

    def size(self, dim: int | None = None) -> Any:
        """The whole tensor's, as that of a DTensor."""
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
