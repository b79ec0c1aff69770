"""How the rows of a joint batch are shared out among the ranks, and how they come together again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mist_ext.distributed import ranks
from mist_ext.distributed.agreement import largest


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that all ranks work on together, in as equal parts as possible, in the order of the ranks.

    A loss over the joint batch is computed by every rank from the gathered rows, and goes backward through the rank's
    own rows alone. The sum of the ranks' gradients is therefore the gradient that one process would have, and backward
    itself exchanges nothing.

    Parameters
    ----------
    count : int
        Rows of the joint batch.
    rank, size : int
    """

    count: int
    rank: int
    size: int

    @classmethod
    def of(cls, count: int) -> Rows:
        """Shared out among the ranks there are."""
        return cls(count, ranks.rank(), ranks.size())

    def part(self, rank: int) -> slice:
        """The rows of a rank."""
        return slice(self.count * rank // self.size, self.count * (rank + 1) // self.size)

    @property
    def own(self) -> slice:
        """The rows of this rank."""
        return self.part(self.rank)

    @property
    def weight(self) -> float:
        """The share of the joint batch: what a mean over own rows counts in the mean over all."""
        return (self.own.stop - self.own.start) / self.count

    @property
    def empty(self) -> bool:
        """Whether this rank has none: it still takes part in everything that all ranks do."""
        return self.own.start == self.own.stop

    def gather(self, own: Tensor) -> Tensor:
        """All rows, on every rank; the gradient goes to the rank's own.

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


def gather_turns(own: Tensor | None, batch_sizes: list[int], device: torch.device) -> Tensor:
    """The rows of batches that the ranks took in turns, in the order of the batches, on every rank.

    Parameters
    ----------
    own : Tensor or None
        float32 ``[own rows, d]``: of batches rank, rank + size, rank + 2 size, and so on; None where there was no turn.
    batch_sizes : list of int
        The rows of all batches.
    device : torch.device
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
    taken = [0] * size
    ordered = []
    for number, rows in enumerate(batch_sizes):
        turn = number % size
        ordered.append(parts[turn][taken[turn] : taken[turn] + rows])
        taken[turn] += rows
    return torch.cat(ordered)
