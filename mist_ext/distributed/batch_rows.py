"""The rows of a joint batch that each rank works on, and how all ranks gather them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mist_ext.distributed import ranks
from mist_ext.distributed.agreement import largest


@dataclass(frozen=True)
class BatchRows:
    """The split of a joint batch into as equal parts as possible, in the order of the ranks.

    Every rank computes the loss of the joint batch from the gathered rows, and backward goes through the rank's own
    rows alone. So the sum of the ranks' gradients is the gradient that one process would have, and backward itself
    exchanges nothing.

    Parameters
    ----------
    count : int
        Rows of the joint batch.
    rank, size : int
        This process, and the number of processes.
    """

    count: int
    rank: int
    size: int

    @classmethod
    def of(cls, count: int) -> BatchRows:
        """Split a batch of ``count`` rows among the ranks of this run."""
        return cls(count, ranks.rank(), ranks.size())

    def part(self, rank: int) -> slice:
        """Return the rows of a rank."""
        return slice(self.count * rank // self.size, self.count * (rank + 1) // self.size)

    @property
    def own(self) -> slice:
        """The rows of this rank."""
        return self.part(self.rank)

    @property
    def weight(self) -> float:
        """The fraction of the joint batch's rows that this rank has.

        Multiplied by it, the mean over the rank's own rows is its part of the mean over all rows.
        """
        return (self.own.stop - self.own.start) / self.count

    @property
    def empty(self) -> bool:
        """Whether this rank has no rows, as with fewer rows than ranks; it must join every collective all the same."""
        return self.own.start == self.own.stop

    def gather(self, own: Tensor) -> Tensor:
        """Return all rows, on every rank; a gradient flows into the rank's own alone.

        Parameters
        ----------
        own : Tensor
            ``[own rows, ...]``.

        Returns
        -------
        Tensor
            ``[count, ...]``.
        """
        if self.size == 1:
            return own
        longest = -(-self.count // self.size)
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own.detach()
        gathered = own.new_empty(self.size * longest, *own.shape[1:])
        dist.all_gather(list(gathered.chunk(self.size)), padded)
        parts = []
        for rank in range(self.size):
            rows = self.part(rank)
            others = gathered[rank * longest : rank * longest + rows.stop - rows.start]
            parts.append(own if rank == self.rank else others)
        return torch.cat(parts)


def gather_round_robin(own: Tensor | None, batch_sizes: list[int], device: torch.device) -> Tensor:
    """Return the rows of batches that the ranks took round-robin, in the order of the batches, on every rank.

    Parameters
    ----------
    own : Tensor or None
        float32 ``[own rows, d]``: of batches rank, rank + size, rank + 2 size, ...; None on a rank that had no batch.
    batch_sizes : list of int
        The number of rows of each batch.
    device : torch.device
        Of the result.

    Returns
    -------
    Tensor
        float32 ``[sum(batch_sizes), d]``.
    """
    rank, size = ranks.rank(), ranks.size()
    if size == 1:
        assert own is not None
        return own
    (width,) = largest(0 if own is None else own.shape[1])
    counts = [sum(batch_sizes[start::size]) for start in range(size)]
    padded = torch.zeros(max(counts), width, device=device)
    if own is not None:
        padded[: counts[rank]] = own
    gathered = padded.new_empty(size * max(counts), width)
    parts = gathered.split(max(counts))
    dist.all_gather(list(parts), padded)
    used = [0] * size
    ordered = []
    for number, rows in enumerate(batch_sizes):
        rank = number % size
        ordered.append(parts[rank][used[rank] : used[rank] + rows])
        used[rank] += rows
    return torch.cat(ordered)
