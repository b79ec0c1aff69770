"""Features that methods learn from and are tested on: each image goes through the network once a task at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mist_ext.data.batches import Batches
from mist_ext.data.stream import Task
from mist_ext.data.task_images import TaskImages
from mist_ext.distributed.batch_rows import gather_round_robin
from mist_ext.system.callbacks import Callbacks
from mist_ext.system.costs import Costs
from mist_ext.tuners.divergence import Diverged

BATCH_SIZE = 256  # images; only speed and memory depend on it
Labelled = tuple[Tensor, Tensor]  # features float32 [n, d], labels int64 [n]


@dataclass
class TaskFeatures:
    """What a method learns from and is tested on, and what that cost.

    Attributes
    ----------
    train : Labelled
        Of the task's training images.
    tests : list of Labelled
        Of the test images of every task so far.
    costs : Costs
        Of the phases learn and evaluate.
    """

    train: Labelled
    tests: list[Labelled]
    costs: Costs


@dataclass
class FeatureExtractor:
    """Extracts the features of images, without augmentation.

    Parameters
    ----------
    network : callable
        Images ``[n, 3, height, width]`` to features float32 ``[n, d]``.
    device : torch.device
    sharded : bool
        Whether the ranks bring the network together for every batch, so that all must take part in each.
    callbacks : Callbacks
    """

    network: Callable[[Tensor], Tensor]
    device: torch.device
    sharded: bool
    callbacks: Callbacks

    def extract_task(self, seen: Sequence[Task], tests: Sequence[Labelled], costs: Costs) -> TaskFeatures:
        """Extract the features of the newest task's training images and of the test images of every task.

        Parameters
        ----------
        seen : sequence of Task
            All tasks so far.
        tests : sequence of Labelled
            Of the first tasks, whose test images are not extracted again.
        costs : Costs
            Counts the training images under ``learn``, the test images under ``evaluate``.
        """
        with costs.phase("learn"):
            train = self.extract(seen[-1].train)
        with costs.phase("evaluate"):
            return TaskFeatures(train, [*tests, *(self.extract(task.test) for task in seen[len(tests) :])], costs)

    @torch.no_grad()
    def extract(self, images: TaskImages) -> Labelled:
        """Return the features of all images, and their labels.

        The ranks take whole batches round-robin, and every rank gets all features, in the order and with the bits that
        one process would have.

        Raises
        ------
        Diverged
            If a feature is NaN or infinite.
        """
        batches = Batches(images, BATCH_SIZE, None, device=self.device, split="round-robin")
        features = []
        for pixels, _ in self.callbacks.progress(batches, "extract", len(batches)):
            features.append(self.network(pixels))
            self.callbacks.checkpoint_if_due()
        if batches.idle:  # while other ranks have another batch
            if self.sharded:
                self.network(images[0][0][None].to(self.device))
            self.callbacks.checkpoint_if_due()
        own = torch.cat(features) if features else None
        together = gather_round_robin(own, [rows.count for rows in batches.rows], self.device)
        if broken := int((~together.isfinite().all(dim=1)).sum()):
            raise Diverged(
                f"{broken} of {len(together)} images of a part have features that are NaN or infinite; lower the "
                "learning rate if something was trained, else look at the weights"
            )
        return together, images.labels.to(self.device)


def backbone_features(backbone: nn.Module, pixels: Tensor) -> Tensor:
    """Return the backbone's own features: float32 ``[n, d]``."""
    return backbone.eval()(pixels.to(next(backbone.parameters()).dtype)).float()
