"""Tuning with the mutual-information objective: batches, views and loss, for every tuner that trains."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.backbones import train_mode
from mist_ext.data.stream import batches
from mist_ext.draws import draw_seed
from mist_ext.objective import MutualInformation, TwoViews
from mist_ext.tuners.tuner import Track, Tuner, TuningOptions


class ContrastiveTuner(Tuner):
    """Holds the projector, which is kept over all tasks, and runs epochs of two-view batches."""

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.device = next(backbone.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "projector"))
            self.objective = MutualInformation(int(backbone.num_features)).to(self.device)  # type: ignore[arg-type]
        self.task = -1
        self.views: dict[tuple[int, int], TwoViews] = {}  # by image size
        self._views((32, 32))  # kornia's import takes seconds, which are not the first epoch's

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The backbone's parameters, then the projector's."""
        return [*self.backbone.named_parameters(), *self.objective.named_parameters()]

    def groups(self, lr: float) -> list[dict]:
        """Parameter groups for an optimiser, by name: the backbone at ``lr``, the projector at its own rate."""
        return [
            {"params": list(self.backbone.named_parameters()), "lr": lr},
            {"params": list(self.objective.named_parameters()), "lr": self.options.projector_lr},
        ]

    def _views(self, size: tuple[int, int]) -> TwoViews:
        return self.views.setdefault(size, TwoViews(size))

    def epoch(self, images: Dataset, epoch: int, track: Track, phase: str) -> Iterator[Tensor]:
        """Forward of every batch of one epoch; yields its loss, for the tuner to go backward from.

        Parameters
        ----------
        images : Dataset
            Of float32 images ``[3, height, width]`` and labels.
        epoch : int
        track : callable
            The progress display.
        phase : str
            What the display calls it.
        """
        loader = batches(images, self.options.batch_size, (self.seed, "order", self.task, epoch))
        height, width = images[0][0].shape[-2:]
        views = self._views((height, width))
        train_mode(self.backbone)
        dtype = next(self.backbone.parameters()).dtype
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")
        for step, (pixels, labels) in enumerate(track(loader, phase, len(loader))):
            both = views(pixels.to(self.device), draw_seed(self.seed, "views", self.task, epoch, step))
            with torch.random.fork_rng(devices=[]), autocast:
                # A backbone's dropout draws from torch's global generators.
                torch.manual_seed(draw_seed(self.seed, "dropout", self.task, epoch, step))
                features = self.backbone(both.to(dtype))
                loss = self.objective(features.to(self.objective.projector.weight.dtype), labels.to(self.device))
            yield loss
