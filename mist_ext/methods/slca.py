"""SLCA: a backbone that learns slowly, and a classifier that is aligned with Gaussians of all classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.adaptation import at_least_one
from mist_ext.methods.gaussians import ClassGaussians
from mist_ext.methods.sequential import SequentiallyTuned
from mist_ext.methods.training import Recipe, TaskHeads, fit
from mist_ext.seeding import generator
from mist_ext.tuners.schedules import last_tenth


class SLCA(SequentiallyTuned, ClassGaussians):
    """Slow learner with classifier alignment.

    Zhang et al., "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model", arXiv
    2303.05118. A copy of the whole backbone is tuned on one task after another with a hundredth of the classifier's
    learning rate (slow learner, section 3.3), each task with cross-entropy over its own classes. Then the classifier
    alone is trained on features drawn from one Gaussian per class seen so far (section 3.4, equations 4 and 5)::

        f ~ N(w mu_c, S_c + eps I),  w = 0.9 + 0.1 (task of c + 1) / (tasks so far)
        loss = cross-entropy of  logits / (tau m),  m = mean over tasks of the norm of the task's logits

    with tau = 0.1, 256 draws a class and epoch-wise cosine annealing. Published for a ViT-B/16: SGD, 0.01 for the
    classifier and 0.0001 for the backbone, a tenth of that from 90 % of the epochs on, 20 epochs, batch 128, alignment
    of 5 epochs from the second task on. w and eps = 10^-4 are in the published code alone.

    Where a tuner moves the backbone, each task starts from what it has made of it, with the copy's own learning on top.
    The Gaussians of earlier classes stay as they were when their task was learned.

    A class with one image has no covariance; it takes the mean of the other classes', with a warning.

    Parameters
    ----------
    draws_per_class : int
    alignment_epochs : int
    temperature : float
        tau.
    slowness : float
        The backbone's share of the learning rate.
    epochs : int
    lr : float
        Of the classifier.
    batch_size : int
    seed : int
    """

    learned: ClassVar[tuple[str, ...]] = (*ClassGaussians.learned, "followed")

    def __init__(
        self,
        draws_per_class: int = 256,
        alignment_epochs: int = 5,
        temperature: float = 0.1,
        slowness: float = 0.01,
        epochs: int = 20,
        lr: float = 0.01,
        batch_size: int = 128,
        seed: int = 1993,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, weight_decay=5e-4, schedule=last_tenth), seed)
        at_least_one("draws_per_class", draws_per_class)
        at_least_one("alignment_epochs", alignment_epochs)
        if not (temperature > 0 and slowness >= 0):
            raise ValueError(
                f"temperature={temperature}, slowness={slowness}: expected temperature > 0 and slowness >= 0"
            )
        self.alignment = Recipe(alignment_epochs, lr, draws_per_class, weight_decay=5e-4)
        self.temperature, self.slowness = temperature, slowness

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor) -> None:
        super().learn(features, labels)
        if len(self.sessions) > 1:
            self._align()

    def _align(self) -> None:
        heads: TaskHeads = self.network.heads
        samples, labels = self.sampled()
        key = (self.seed, "align", len(self.sessions))

        def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
            order = torch.randperm(len(samples), generator=generator(*key, "order", epoch)).to(samples.device)
            parts = order.split(self.alignment.batch_size)
            return [(samples[part], labels[part]) for part in parts]

        def loss(drawn: Tensor, targets: Tensor) -> Tensor:
            logits = heads(drawn)
            norms = [part.norm(dim=1) for part in logits.split([len(session) for session in self.sessions], dim=1)]
            mean = torch.stack(norms, dim=1).mean(dim=1, keepdim=True) + 1e-7
            return functional.cross_entropy(logits / mean / self.temperature, targets)

        groups = [(heads.parameters(), 1.0)]
        self.losses["align"] = fit(loss, groups, self.alignment, batches, key, "align", len(self.sessions))

    def sampled(self) -> tuple[Tensor, Tensor]:
        """Return features drawn for every class seen: float32 ``[draws, d]`` and int64 labels ``[draws]``."""
        per_class = self.alignment.batch_size
        means, seen = self.prototypes, self.counts.nonzero().flatten().tolist()
        covariances = dict(zip(seen, self.covariances(seen), strict=True))
        shift = 1e-4 * torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
        samples, labels = [], []
        for task, session in enumerate(self.sessions):
            weight = 0.9 + 0.1 * (task + 1) / len(self.sessions)
            for position in (position for position in session if position in covariances):
                own = generator(self.seed, "align", len(self.sessions), "class", position)
                normal = torch.randn(per_class, means.shape[1], generator=own, dtype=means.dtype).to(means.device)
                factor = torch.linalg.cholesky(covariances[position] + shift)
                samples.append((weight * means[position] + normal @ factor.T).float())
                labels.append(torch.full((per_class,), position, device=means.device))
        return torch.cat(samples), torch.cat(labels)
