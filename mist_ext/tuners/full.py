"""Full fine-tuning: the same objective, every parameter, torch's own SGD."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.tuners.changes import measure_step
from mist_ext.tuners.contrastive import ContrastiveTuner
from mist_ext.tuners.tuner import Pause, Track, Tuned, never, untracked


class Full(ContrastiveTuner):
    """Every parameter follows its whole gradient in every step."""

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self._optimizer: torch.optim.SGD | None = None  # one for each task

    def tune(self, images: Dataset, track: Track = untracked, pause: Pause = never) -> Tuned:
        tuned = self.begin_task()
        tuned.selected_fraction = 1.0
        if self._optimizer is None:
            self._optimizer = self._new_optimizer()
        optimizer = self._optimizer
        values = dict(self.backbone.named_parameters())
        sizes = {name: value.numel() for name, value in values.items()}
        epochs = self.options.epochs
        for epoch in range(self.position[0], epochs):
            for loss in self.epoch(images, epoch, "tune", f"tune {epoch + 1}/{epochs}", track, pause):
                loss.backward()
                if self.position[1] == 0:
                    measure_step(values, sizes, values, optimizer.step, tuned)
                    tuned.kept.append(1.0)
                else:
                    optimizer.step()
                optimizer.zero_grad()
        self._optimizer = None
        return self.end_task()

    def _new_optimizer(self) -> torch.optim.SGD:
        options = self.options
        return torch.optim.SGD(
            self.groups(options.full_lr), momentum=options.momentum, weight_decay=options.weight_decay
        )

    def state_dict(self) -> dict[str, Any]:
        own = None if self._optimizer is None else self._optimizer.state_dict()
        return {**super().state_dict(), "optimizer": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if state["optimizer"] is not None:
            self._optimizer = self._new_optimizer()
            self._optimizer.load_state_dict(state["optimizer"])
