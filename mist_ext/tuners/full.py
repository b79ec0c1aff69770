"""Full fine-tuning: every parameter, torch's own SGD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.registry import TUNERS
from mist_ext.tuners.changes import measure_step
from mist_ext.tuners.contrastive import ContrastiveTuner
from mist_ext.tuners.freezing import all_frozen_but
from mist_ext.tuners.optimizer_state import load_state
from mist_ext.tuners.tuner import Tuned


class Full(ContrastiveTuner):
    """Every parameter follows its whole gradient in every step.

    Tuners of fewer parameters derive from it: `trained` says which parameters, `mask_gradients` which gradients count,
    and `lr_option` which learning rate.
    """

    lr_option: ClassVar[str] = "full_lr"

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self._optimizer: torch.optim.SGD | None = None  # one for each task

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        if options.precision == "bf16-pure":
            raise ValueError(
                f"tuner {cls.name()!r} has torch's dense SGD without fp32 masters, whose steps would be lost in bf16 "
                "rounding; use precision bf16"
            )

    @classmethod
    def name(cls) -> str:
        """Return what the tuner is called in a run, or its class where that is not known."""
        place = f"{cls.__module__}:{cls.__name__}"
        return next((name for name, known in TUNERS.items() if known == place), cls.__name__)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters that follow the gradient, by name."""
        return self.tunable()

    def written(self) -> Iterable[Tensor]:
        return [p for _, p in (*self.trained(), *(pair for group in self.head_groups() for pair in group["params"]))]

    def values(self) -> Mapping[str, Tensor]:
        """Return the backbone's weights, by name, as they are once what is trained is merged into them."""
        return dict(self.backbone.named_parameters())

    def reached(self) -> float:
        """Return the share of the backbone's entries that can change."""
        return sum(p.numel() for _, p in self.trained()) / sum(p.numel() for p in self.backbone.parameters())

    def tune(self, images: Dataset) -> Tuned:
        tuned = self.begin_task(images)
        trained = [p for _, p in self.trained()]
        with all_frozen_but(trained, self.backbone.parameters()), self.dense_exchange():
            self._tune(images, tuned)
        self._optimizer = None
        return self.end_task()

    def _tune(self, images: Dataset, tuned: Tuned) -> None:
        tuned.selected_fraction = self.reached()
        if self._optimizer is None:
            self._optimizer = self._new_optimizer()
        optimizer = self._optimizer
        sizes = {name: p.numel() for name, p in self.backbone.named_parameters()}
        epochs, objective = self.task_epochs, self.options.tune_objective
        for epoch in range(self.position[0], epochs):
            for loss in self.epoch(images, epoch, "tune", f"tune {epoch + 1}/{epochs}", objective):
                loss.backward()
                self.mask_gradients()
                with self.scheduled(optimizer):
                    if self.position[1] == 0:
                        measure_step(self.values, sizes, sizes, optimizer.step, tuned)
                        tuned.kept.append(self.kept_fraction())
                    else:
                        optimizer.step()
                optimizer.zero_grad()

    def mask_gradients(self) -> None:
        """Zero what a step is not to follow; nothing, unless a tuner chooses."""

    def kept_fraction(self) -> float:
        """Return the share of the backbone's entries whose gradient the step at hand follows."""
        return self.reached()

    def _new_optimizer(self) -> torch.optim.SGD:
        options = self.options
        groups = [{"params": self.trained(), "lr": self.lr}, *self.head_groups()]
        return torch.optim.SGD(groups, momentum=options.momentum, weight_decay=options.weight_decay)

    def state_dict(self) -> dict[str, Any]:
        own = None if self._optimizer is None else self._optimizer.state_dict()
        return {**super().state_dict(), "optimizer": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["optimizer"] is not None:
            self._optimizer = self._new_optimizer()
            load_state(self._optimizer, state["optimizer"])
