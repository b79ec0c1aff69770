"""Training that has diverged ends at the step where it did: what a step read and wrote has to be finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mist_ext.distributed import agreement, ranks
from mist_ext.distributed.gradients import add_up_
from mist_ext.distributed.shard import local

LOOK_EVERY = 50  # batches, on a GPU, which each look waits for
# What may be wrong with a batch; among several the first here is told.
OF_LOSS = ("the loss is NaN", "the loss is infinite")
OF_STEP = ("its gradient has made weights or scores NaN", "its gradient has made weights or scores infinite")
SIGNS = (*OF_LOSS, *OF_STEP)
UNTOUCHED = "look at the weights and the images: no step was taken before"  # what to do about a first loss


class Diverged(ValueError):
    """A loss, or what its gradients have made, is NaN or infinite."""


def largest_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the largest Euclidean norm of some tensors, float32 on their device: finite if every entry is.

    It is not where any entry is NaN or infinite, or a norm is beyond 1.8e19, whose square float32 cannot hold. Nothing
    waits for a GPU, and every entry is read once.
    """
    return torch.stack(torch._foreach_norm([local(t).detach() for t in tensors], 2, dtype=torch.float32)).max()


def require_finite(backbone: nn.Module, weights: str) -> None:
    """Raise ValueError, with the name, if a parameter of a backbone is NaN or infinite before anything was trained."""
    for name, parameter in backbone.named_parameters():
        if not largest_norm([parameter]).isfinite():
            raise ValueError(
                f"{name} of the backbone holds NaN or infinite values before anything was tuned: weights {weights!r} "
                "are damaged, or of training that diverged; give others with --weights"
            )


class EpochMonitor:
    """Record each batch's loss and the size of what its step wrote, and find the first that is not finite.

    Gradients themselves are not looked at, since some are freed as soon as they are made, and of most entries they are
    dropped. What counts is written: weights by a step, sums of squares by scoring. A NaN or infinite gradient that is
    not dropped makes these NaN or infinite, for good.

    In one process on a CPU that is found at once, a loss before its step is taken. A GPU is asked every 50 batches, at
    the end of the epoch and before a state is saved, and the batch where it began is told all the same. Several ranks
    find it together after a step, as late as the slowest to ask.

    Parameters
    ----------
    batches : int
        Of the whole epoch.
    device : torch.device
    diverged : callable
        From the number of a batch, from 0, and what is wrong with it to the error to raise.
    losses : Tensor, optional
        What `losses` gave before an interruption.
    parts : bool
        Whether the ranks have different batches or summands of their losses, not the same losses.
    """

    def __init__(
        self,
        batches: int,
        device: torch.device,
        diverged: Callable[[int, str], Diverged],
        losses: Tensor | None = None,
        parts: bool = False,
    ) -> None:
        self.diverged = diverged
        self.batches = batches
        self._sizes = torch.zeros(2, batches, device=device)  # of losses and of what was written
        self._parts = parts and ranks.size() > 1
        self._seen = 0
        self._rarely = device.type == "cuda"
        if losses is not None and not (self._parts and not ranks.is_first()):
            self._sizes[0] = losses

    def begin(self, batch: int, loss: Tensor) -> None:
        """Record a batch's loss; raise `Diverged` where that is found at once."""
        self._sizes[0, batch] = loss.detach()
        if not self._rarely and ranks.size() == 1:
            self.look()

    def end(self, batch: int, written: Iterable[Tensor]) -> None:
        """Record what a batch's step has written."""
        self._sizes[1, batch] = largest_norm(written)

    def passed(self, batches: int) -> None:
        """Note how many batches all ranks have gone through; raise `Diverged` where it is time to look."""
        last = batches >= self._sizes.shape[1]
        if last or not self._rarely or batches - self._seen >= LOOK_EVERY:
            self.look()
            self._seen = batches

    def look(self) -> None:
        """Raise `Diverged`, on every rank, if any batch was not finite."""
        (found,) = agreement.largest(self._first())
        if found:
            raise agreement.on_every_rank(self.diverged(*self._told(found)))

    def look_here(self) -> None:
        """Raise `Diverged` if any batch of this rank was not finite."""
        if found := self._first():
            raise agreement.on_every_rank(self.diverged(*self._told(found)))

    def losses(self) -> Tensor:
        """Return the losses of all batches so far, float32 ``[batches]`` on the CPU, 0 for those that are to come."""
        losses = self._sizes[0].clone()
        if self._parts:
            add_up_([losses])
        return losses.cpu()

    def mean(self) -> float:
        """Return the mean loss of the epoch, once it is through."""
        return float(self.losses().double().mean())

    def _first(self) -> int:
        """Return a number for the first batch that is not finite and its sign, larger for earlier ones, or 0."""
        sizes = self._sizes[:, self._seen :].cpu()
        bad = ~sizes.isfinite()
        if not bad.any():
            return 0
        batch = int(bad.any(dim=0).nonzero()[0])
        row = int(not bad[0, batch])
        sign = 2 * row + int(not sizes[row, batch].isnan())
        return (self._sizes.shape[1] - self._seen - batch) * len(SIGNS) - sign

    def _told(self, number: int) -> tuple[int, str]:
        left, sign = -(-number // len(SIGNS)), -number % len(SIGNS)
        return self._sizes.shape[1] - left, SIGNS[sign]
