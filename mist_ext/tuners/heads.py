"""The layers that objectives have of their own: the projector for all tasks, and a classifier for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.seeding import draw_seed
from mist_ext.tuners.objective import CosineCrossEntropy, CrossEntropy, MutualInformation


class Heads:
    """MIST's objective with its projector, and where cross-entropy scores or tunes, each task's new classifier.

    Both are drawn as torch draws a linear layer.

    Parameters
    ----------
    backbone : Module
    options : TuningOptions
    seed : int

    Attributes
    ----------
    objective : MutualInformation
    classifier : CrossEntropy or None
        Of the task at hand, where the options ask for it.
    """

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        self.options, self.seed = options, seed
        self.width = int(backbone.num_features)  # type: ignore[arg-type]
        self.device = next(backbone.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "projector"))
            self.objective = MutualInformation(self.width).to(self.device)
        self.classifier: CrossEntropy | None = None

    def begin_task(self, task: int, images: Dataset) -> None:
        """Draw the task's classifier, where one is needed."""
        if self._cross_entropies():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw_seed(self.seed, "classifier", task))
                self.classifier = self._new_classifier(_labels(images).unique())

    def modules(self) -> list[nn.Module]:
        """Return the objectives that there are."""
        return [self.objective, *([] if self.classifier is None else [self.classifier])]

    def groups(self) -> list[dict]:
        """Return their parameter groups for an optimiser."""
        rates = (self.options.projector_lr, self.options.classifier_lr)
        return [
            {"params": list(module.named_parameters()), "lr": lr}
            for module, lr in zip(self.modules(), rates, strict=False)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of both."""
        return {
            "objective": dict(self.objective.state_dict()),
            "classifier": None if self.classifier is None else dict(self.classifier.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, which may hold more."""
        self.objective.load_state_dict(state["objective"])
        if state["classifier"] is not None:
            self.classifier = self._new_classifier(state["classifier"]["classes"])
            self.classifier.load_state_dict(state["classifier"])

    def _cross_entropies(self) -> set[str]:
        return {str(each) for each in (self.options.score_objective, self.options.tune_objective)} - {"mi"}

    def _new_classifier(self, classes: Tensor) -> CrossEntropy:
        kind = CosineCrossEntropy if "ce_cosine" in self._cross_entropies() else CrossEntropy
        return kind(self.width, classes).to(self.device)


def _labels(images: Dataset) -> Tensor:
    """Return the labels of all images, int64 ``[n]``, without decoding any where the data set tells them."""
    labels = getattr(images, "labels", None)
    return torch.tensor([int(label) for _, label in images]) if labels is None else labels  # type: ignore[attr-defined]
