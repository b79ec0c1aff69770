"""Tuning with the mutual-information objective: batches, views and loss, for every tuner that trains."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.backbones import train_mode
from mist_ext.config import TuningOptions
from mist_ext.data.stream import Batches
from mist_ext.draws import draw_seed
from mist_ext.objective import MutualInformation, TwoViews
from mist_ext.tuners.tuner import Pause, Track, Tuned, Tuner


class ContrastiveTuner(Tuner):
    """Holds the projector, which is kept over all tasks, and runs epochs of two-view batches.

    Attributes
    ----------
    task : int
        The number of the task at hand, from 0; -1 before the first.
    tuned : Tuned or None
        What was measured on the task at hand; None between tasks.
    position : tuple of int
        Epoch and batch of the task at hand that come next.
    batches : int
        Those that were gone through since the run began.
    """

    moves_backbone = True

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.device = next(backbone.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(seed, "projector"))
            self.objective = MutualInformation(int(backbone.num_features)).to(self.device)  # type: ignore[arg-type]
        self.task = -1
        self.tuned: Tuned | None = None
        self.position = (0, 0)
        self.batches = 0
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

    def begin_task(self) -> Tuned:
        """The next task's measurements, or those of the task that was interrupted."""
        if self.tuned is None:
            self.task += 1
            self.tuned = Tuned()
            self.position = (0, 0)
        return self.tuned

    def end_task(self) -> Tuned:
        """What was measured; the next task may begin."""
        assert self.tuned is not None
        tuned, self.tuned = self.tuned, None
        return tuned

    def _views(self, size: tuple[int, int]) -> TwoViews:
        return self.views.setdefault(size, TwoViews(size))

    def epoch(
        self, images: Dataset, epoch: int, phase: str, description: str, track: Track, pause: Pause
    ) -> Iterator[Tensor]:
        """Forward of every batch of one epoch; yields its loss, for the tuner to go backward from.

        An epoch that was interrupted goes on at its next batch.

        Parameters
        ----------
        images : Dataset
            Of float32 images ``[3, height, width]`` and labels.
        epoch : int
        phase : str
            Under which the time counts.
        description : str
            What the progress display calls it.
        track : callable
            The progress display.
        pause : callable
            Called after every step.
        """
        assert self.tuned is not None
        first = self.position[1] if self.position[0] == epoch else 0
        order = (self.seed, "order", self.task, epoch)
        batches = Batches(images, self.options.batch_size, order, first, self.device)
        height, width = images[0][0].shape[-2:]
        views = self._views((height, width))
        train_mode(self.backbone)
        dtype = next(self.backbone.parameters()).dtype
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")
        started = time.perf_counter()
        for step, (pixels, labels) in enumerate(track(batches, description, len(batches)), first):
            self.position = (epoch, step)
            both = views(pixels, draw_seed(self.seed, "views", self.task, epoch, step))
            with torch.random.fork_rng(devices=[]), autocast:
                # A backbone's dropout draws from torch's global generators.
                torch.manual_seed(draw_seed(self.seed, "dropout", self.task, epoch, step))
                features = self.backbone(both.to(dtype))
                loss = self.objective(features.to(self.objective.projector.weight.dtype), labels)
            yield loss
            self.position = (epoch, step + 1)
            self.batches += 1
            if self.watch is not None:
                self.watch(f"loss/{phase}", loss.detach(), self.batches)
            self.tuned.seconds[phase] += time.perf_counter() - started
            pause()
            started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "tuned": None if self.tuned is None else dataclasses.asdict(self.tuned),
            "position": self.position,
            "batches": self.batches,
            "objective": dict(self.objective.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        self.tuned = None if state["tuned"] is None else Tuned(**state["tuned"])
        self.position, self.batches = state["position"], state["batches"]
        self.objective.load_state_dict(state["objective"])
