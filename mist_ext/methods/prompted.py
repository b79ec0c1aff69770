"""What the prompt pools share: a query, prompts that it selects, and the classifier behind them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.data.batches import Batches
from mist_ext.methods.hooks import Hook, attached
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import Recipe, TaskHeads
from mist_ext.system.suggest import unknown

Classifier = Literal["linear", "prototypes"]


class PromptedMethod(TrainedMethod, SimpleCIL):
    """Trains prompts and a classifier; the query that selects prompts is the backbone's own feature of the image.

    Each task trains rows of a linear classifier for its own classes, as published. Nothing makes the rows of different
    tasks comparable: what they were trained to tell apart lies within a task. With ``prototypes`` that classifier only
    serves training, and predictions are SimpleCIL's from the prompted features: class means and cosine similarity (as
    in contrastive prototypical prompting, Li et al., arXiv 2303.09447). Those of earlier classes stay as they were when
    their task was learned.

    Each image is answered on its own. (Published code of L2P and DualPrompt lets a batch of test images vote on the
    prompts, so that an answer depends on the other images in its batch.)
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "classifier")
    stale = "its prompts were learned on an earlier backbone"

    def __init__(self, recipe: Recipe, seed: int, classifier: Classifier) -> None:
        super().__init__(recipe, seed)
        if classifier not in get_args(Classifier):
            raise unknown("classifier", classifier, get_args(Classifier))
        self.classifier = classifier

    @property
    def learned_width(self) -> int:
        return self.feature_width if self.sessions else 0

    @property
    def _heads(self) -> TaskHeads:
        return self.network.heads

    def build_network(self) -> nn.Module:
        network = nn.Module()
        network.heads = TaskHeads(self.feature_width)
        return network

    def train_network(self, images: Dataset, classes: range) -> bool:
        queries: dict[int, Tensor] = {}

        def loss(inputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
            pixels, query = inputs
            hooks, penalty = self._prompts(query, training=True)
            with attached(hooks):
                features = self.frozen(pixels)
            return self._heads.loss(features, labels, classes) + penalty

        groups: list[tuple[Iterable[nn.Parameter], float]] = [
            ((*self._trained(), *self._heads.tasks[-1].parameters()), 1.0)
        ]
        self.fit(loss, groups, images, lambda batches: BatchesWithQueries(batches, self._query, queries))
        return True

    def compute_features(self, pixels: Tensor) -> Tensor:
        hooks, _ = self._prompts(self._query(pixels), training=False)
        with attached(hooks):
            return self.frozen(pixels)

    @torch.no_grad()
    def _query(self, pixels: Tensor) -> Tensor:
        return self.frozen(pixels)

    def score(self, features: Tensor) -> Tensor:
        if self.classifier == "prototypes":
            return super().score(features)
        return self._heads(features.float()).double()

    @abstractmethod
    def _trained(self) -> Iterable[nn.Parameter]:
        """Return the prompts and keys that the newest task trains."""

    @abstractmethod
    def _prompts(self, query: Tensor, training: bool) -> tuple[list[Hook], Tensor]:
        """Return hooks that attach the prompts for queries ``[n, d]``, and the term that is added to the loss."""


class BatchesWithQueries:
    """Batches that have each image's query beside its pixels: ``(pixels, query), labels``.

    Parameters
    ----------
    batches : Batches
    query : callable
        From pixels to the queries ``[n, d]``: the backbone as it is, which stays as it is while prompts are trained.
    known : dict of int to Tensor
        Queries of images that look the same in every epoch, filled as batches come: such an image passes through the
        backbone once.
    """

    def __init__(self, batches: Batches, query: Callable[[Tensor], Tensor], known: dict[int, Tensor]) -> None:
        self.batches, self.query, self.known = batches, query, known

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        for items, (pixels, labels) in zip(self.batches.items, self.batches, strict=True):
            yield (pixels, self._queries(items, pixels)), labels

    def _queries(self, items: list, pixels: Tensor) -> Tensor:
        if not self.batches.same:
            return self.query(pixels)
        new = [index for index, item in enumerate(items) if item not in self.known]
        if new:
            self.known.update(zip([items[i] for i in new], self.query(pixels[new]), strict=True))
        return torch.stack([self.known[item] for item in items])


def check_blocks(backbone: Any, option: str, numbers: tuple[int, ...]) -> None:
    """Raise ValueError unless these are one or more different blocks of a backbone, counted from 0."""
    count = len(backbone.blocks)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{option}={numbers}: expected one or more different blocks, from 0 to {count - 1}")
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"{option}={numbers}: the backbone has no block {number}, expected 0 to {count - 1}")
