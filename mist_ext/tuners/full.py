"""Full fine-tuning: the same objective, every parameter, torch's own SGD."""

from __future__ import annotations

import time

import torch
from torch.utils.data import Dataset

from mist_ext.tuners.changes import measure_step
from mist_ext.tuners.contrastive import ContrastiveTuner
from mist_ext.tuners.tuner import Track, Tuned, untracked


class Full(ContrastiveTuner):
    """Every parameter follows its whole gradient in every step."""

    def tune(self, images: Dataset, track: Track = untracked) -> Tuned:
        """Adapt the backbone to the next task's training images."""
        self.task += 1
        options = self.options
        tuned = Tuned(selected_fraction=1.0)
        started = time.perf_counter()
        optimizer = torch.optim.SGD(
            self.groups(options.full_lr), momentum=options.momentum, weight_decay=options.weight_decay
        )
        values = dict(self.backbone.named_parameters())
        sizes = {name: value.numel() for name, value in values.items()}
        for epoch in range(options.epochs):
            for step, loss in enumerate(self.epoch(images, epoch, track, f"tune {epoch + 1}/{options.epochs}")):
                loss.backward()
                if step == 0:
                    measure_step(values, sizes, values, optimizer.step, tuned)
                    tuned.kept.append(1.0)
                else:
                    optimizer.step()
                optimizer.zero_grad()
        tuned.seconds["tune"] = time.perf_counter() - started
        return tuned
