"""The one training loop of the methods that train parameters of their own, and the heads that they train with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.distributed import ranks
from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.distributed.gradients import add_up_
from mist_ext.seeding import draw_seed
from mist_ext.system.callbacks import NO_CALLBACKS, Callbacks
from mist_ext.tuners.divergence import OF_STEP, UNTOUCHED, Diverged, EpochMonitor
from mist_ext.tuners.objective import CosineLinear
from mist_ext.tuners.schedules import cosine


@dataclass(frozen=True)
class Recipe:
    """How a method trains on a task.

    Attributes
    ----------
    epochs, batch_size : int
    lr : float
    optimizer : str
        sgd (momentum 0.9) or adam.
    weight_decay : float
    schedule : callable
        From the share of the epochs that is done to the learning rate's factor.
    clip : float or None
        The largest norm of all gradients together.
    """

    epochs: int
    lr: float
    batch_size: int
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float = 0.0
    schedule: Callable[[float], float] = cosine
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a whole number from 1 on")
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: expected more than 0")


def fit(
    loss: Callable[[Any, Tensor], Tensor],
    groups: Sequence[tuple[Iterable[nn.Parameter], float]],
    recipe: Recipe,
    batches: Callable[[int], Iterable[tuple[Any, Tensor]]],
    key: tuple[int | str, ...],
    phase: str,
    task: int,
    rows: Callable[[int], BatchRows] | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
) -> list[float]:
    """Minimise a loss over epochs of batches.

    Parameters
    ----------
    loss : callable
        Of a batch's inputs and labels: a mean over its rows.
    groups : sequence
        Parameters, each group with a factor of the recipe's learning rate.
    recipe : Recipe
    batches : callable
        The batches of an epoch; they have a length.
    key : tuple
        Names the draws: those of torch's generator in a step (dropout) are a pure function of key, epoch and step.
    phase : str
        What the display calls it.
    task : int
        The number of the task at hand, from 1.
    rows : callable, optional
        From a step's number to the part of its joint batch that this rank gets; the gradients are summed over the ranks
        then.
    callbacks : Callbacks, optional

    Returns
    -------
    list of float
        The mean loss of each epoch's batches.

    Raises
    ------
    Diverged
        If a loss or what a step has made of the parameters is NaN or infinite, as `EpochMonitor` finds it.
    """
    parameters = [(list(group), factor) for group, factor in groups]
    settings = [{"params": group, "lr": recipe.lr * factor} for group, factor in parameters]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(settings, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
    else:
        optimizer = torch.optim.Adam(settings, lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: recipe.schedule(epoch / recipe.epochs))
    everything = [parameter for group, _ in parameters for parameter in group]
    devices = sorted({parameter.device.index for parameter in everything if parameter.is_cuda})
    means = []
    for epoch in range(recipe.epochs):
        steps = batches(epoch)
        count: int = len(steps)  # type: ignore[arg-type]

        def diverged(batch: int, sign: str, epoch: int = epoch, count: int = count) -> Diverged:
            where = f"task {task}, {phase}, epoch {epoch + 1} of {recipe.epochs}, batch {batch + 1} of {count}"
            untouched = task == 1 and epoch == batch == 0 and sign not in OF_STEP
            advice = f"lower the method's rate (--method-options lr={recipe.lr / 10:g}, it was {recipe.lr:g})"
            return Diverged(f"training diverged in {where}: {sign}; {UNTOUCHED if untouched else advice}")

        monitor = EpochMonitor(count, everything[0].device, diverged, parts=rows is not None)
        shown = callbacks.progress(steps, f"{phase} {epoch + 1}/{recipe.epochs}", count)
        for step, (inputs, labels) in enumerate(shown):
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                own = () if rows is None else (ranks.rank(),)
                torch.manual_seed(draw_seed(*key, epoch, step, *own))
                value = loss(inputs, labels)
                if rows is not None:
                    value = value * rows(step).weight
                monitor.begin(step, value)
                value.backward()
            if rows is not None:
                add_up_(parameter.grad for parameter in everything if parameter.grad is not None)
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(everything, recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            monitor.end(step, everything)
            monitor.passed(step + 1)
            callbacks.checkpoint_if_due()
        means.append(monitor.mean())
        scheduler.step()
    return means


class CosineHead(CosineLinear):
    """A cosine classifier of one task (APER, EASE).

    Parameters
    ----------
    width : int
        Of the features.
    classes : range
        Those of the task: labels are positions in the class order.
    """

    def __init__(self, width: int, classes: range) -> None:
        super().__init__(width, len(classes))
        self.classes = classes

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy over the task's classes."""
        return functional.cross_entropy(self(features), labels - self.classes.start)


class TaskHeads(nn.Module):
    """A linear classifier that gets rows for every task; a task's loss reaches its own rows alone.

    Parameters
    ----------
    width : int
        Of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.tasks = nn.ModuleList()

    def extend(self, classes: range) -> None:
        """Add a task's classes to the classifier."""
        self.tasks.append(nn.Linear(self.width, len(classes)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of all classes so far."""
        return torch.cat([head(features) for head in self.tasks], dim=1)

    def loss(self, features: Tensor, labels: Tensor, classes: range) -> Tensor:
        """Return the cross-entropy over the newest task's classes."""
        return functional.cross_entropy(self.tasks[-1](features), labels - classes.start)
