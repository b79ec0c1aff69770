"""Batches, views and loss, for every tuner that trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.backbones import recomputed, train_mode
from mist_ext.config import TuningOptions
from mist_ext.data.batches import Batches
from mist_ext.distributed import ranks
from mist_ext.distributed.gradients import data_parallel
from mist_ext.distributed.shard import is_sharded
from mist_ext.results.record import Count
from mist_ext.seeding import draw_seed
from mist_ext.system.costs import Costs
from mist_ext.tuners import schedules
from mist_ext.tuners.divergence import OF_STEP, UNTOUCHED, Diverged, EpochMonitor, largest_norm
from mist_ext.tuners.heads import Heads
from mist_ext.tuners.objective import CrossEntropy, MutualInformation
from mist_ext.tuners.tuner import Tuned, Tuner
from mist_ext.tuners.views import TwoViews


class ContrastiveTuner(Tuner):
    """Holds the objectives and runs epochs of two-view batches.

    Attributes
    ----------
    lr_option : str
        Class attribute: the option that says how fast what is trained moves.
    network : Module
        What losses go backward through: the backbone, or what a tuner puts around it.
    heads : Heads
        The objectives with the layers of their own.
    sharded : bool
        Whether the backbone is spread over the ranks by FSDP2.
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
    lr_option: ClassVar[str] = "lr"

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.device = next(backbone.parameters()).device
        self.sharded = is_sharded(next(backbone.parameters()))
        self.heads = Heads(backbone, options, seed)
        self.network = backbone
        self.task = -1
        self.tuned: Tuned | None = None
        self.position = (0, 0)
        self.batches = 0
        self._monitor: EpochMonitor | None = None  # of the epoch at hand
        self._losses: Tensor | None = None  # of an epoch that was interrupted, until it goes on
        self.reduced: dict[nn.Module, nn.Module] = {}  # what stands in for a module, so that its gradients are reduced
        self.views = TwoViews()

    @property
    def objective(self) -> MutualInformation:
        """The mutual-information objective, whose projector is kept over all tasks."""
        return self.heads.objective

    @property
    def classifier(self) -> CrossEntropy | None:
        """The cross-entropy objective of the task at hand, where the options ask for it."""
        return self.heads.classifier

    @property
    def task_epochs(self) -> int:
        """The epochs of the task at hand."""
        return (self.task == 0 and self.options.first_task_epochs) or self.options.epochs

    @property
    def lr(self) -> float:
        """The learning rate of what is trained in the task at hand, but for the objective's own layers."""
        rate: float = getattr(self.options, self.lr_option)
        return rate if self.task <= 0 else rate * self.options.later_lr_factor

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        if not tunable(backbone, options):
            names = ", ".join(list(dict(backbone.named_parameters()))[:4])
            raise ValueError(
                f"layers is {options.layers!r}, which matches the name of no tensor of {type(backbone).__name__}; its "
                f"names are {names}, ..."
            )

    def tunable(self) -> list[tuple[str, nn.Parameter]]:
        """Return the backbone's parameters that ``layers`` names."""
        return tunable(self.backbone, self.options)

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the backbone's parameters that are tuned, then the projector's and the classifier's."""
        return [*self.tunable(), *(pair for group in self.head_groups() for pair in group["params"])]

    def groups(self, lr: float) -> list[dict]:
        """Return parameter groups for an optimiser: the backbone at ``lr``, the objectives' own at their rates."""
        return [{"params": self.tunable(), "lr": lr}, *self.head_groups()]

    def head_groups(self) -> list[dict]:
        """Return the parameter groups of the objectives' own layers."""
        return self.heads.groups()

    def written(self) -> Iterable[Tensor]:
        """Return what the steps of the epoch at hand write, which must stay finite."""
        return [parameter for _, parameter in self.named_parameters()]

    def begin_task(self, images: Dataset) -> Tuned:
        """Begin the next task, or go on with an interrupted one; return its measurements."""
        if self.tuned is None:
            self.task += 1
            self.tuned = Tuned(Costs(self.device))
            self.position = (0, 0)
            self.heads.begin_task(self.task, images)
        return self.tuned

    def end_task(self) -> Tuned:
        """End the task at hand; return what was measured."""
        assert self.tuned is not None
        tuned, self.tuned = self.tuned, None
        self.heads.classifier = None
        return tuned

    @contextmanager
    def scheduled(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Scale an optimiser's learning rates in the block, as the schedule has them for the batch at hand.

        They are put back, so its state is that of no schedule, whenever it is saved.
        """
        if self.options.schedule == "constant":
            yield
            return
        assert self.tuned is not None
        assert self._monitor is not None
        epoch, batch = self.position
        past = len(self.tuned.losses.get("tune", []))  # epochs that updated
        progress = (past + batch / self._monitor.batches) / (self.task_epochs - epoch + past)
        with schedules.scaled(optimizer, getattr(schedules, self.options.schedule)(progress)):
            yield

    @contextmanager
    def dense_exchange(self) -> Iterator[None]:
        """Keep DDP reducing dense gradients over the ranks while the block runs, for what requires a gradient now."""
        modules = [self.network, *self.heads.modules()] if ranks.size() > 1 else []
        trained = [module for module in modules if any(p.requires_grad for p in module.parameters())]
        self.reduced = {module: data_parallel(module) for module in trained}
        try:
            yield
        finally:
            self.reduced = {}

    def epoch(self, images: Dataset, epoch: int, phase: str, description: str, objective: str) -> Iterator[Tensor]:
        """Go forward through every batch of one epoch; yield its loss, for the tuner to go backward from.

        An epoch that was interrupted goes on at its next batch. Where several ranks work together, each goes through
        its own rows of every batch, and the gradients are to be summed over the ranks; but where every batch's own
        gradient is needed, to score by it, the ranks take whole batches round-robin. A sharded backbone's gradients are
        the sums already, and all ranks go through it at once.

        Parameters
        ----------
        images : Dataset
            Of float32 images ``[3, height, width]`` and labels.
        epoch : int
        phase : str
            Under which time and memory count, the work between two batches included; checkpoints do not.
        description : str
            What the progress display calls it.
        objective : str
            ``mi``, ``ce`` or ``ce_cosine``.

        Raises
        ------
        Diverged
            If a loss or what a step has `written` is NaN or infinite, as `EpochMonitor` finds it.
        """
        assert self.tuned is not None
        costs = self.tuned.costs
        first = self.position[1] if self.position[0] == epoch else 0
        order = (self.seed, "order", self.task, epoch)
        round_robin = phase == "score" and not self.sharded
        batches = Batches(
            images, self.options.batch_size, order, first, self.device, split="round-robin" if round_robin else "rows"
        )
        stride, offset = (ranks.size(), ranks.rank()) if round_robin else (1, 0)
        last = first + len(batches.rows)
        train_mode(self.network)
        loss_of: Any = self.objective if objective == "mi" else self.classifier
        views = loss_of.views
        head_dtype = next(loss_of.parameters()).dtype
        dtype = next(self.backbone.parameters()).dtype
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16")
        network, loss_of = (self.reduced.get(module, module) for module in (self.network, loss_of))
        self._monitor = monitor = self._new_monitor(phase, objective, last, round_robin)
        written = list(self.written())
        with costs.phase(phase):
            for number, (pixels, labels) in enumerate(self.callbacks.progress(batches, description, len(batches))):
                done = first + number * stride
                self.position = (epoch, done)
                step = done + offset
                rows = None if round_robin or ranks.size() == 1 else batches.rows[number]
                if views == 2:
                    pixels = self.views(pixels, draw_seed(self.seed, "views", self.task, epoch, step), rows)
                with torch.random.fork_rng(devices=[]), autocast:
                    # A backbone's dropout draws from torch's global generators.
                    own = () if rows is None else (ranks.rank(),)
                    torch.manual_seed(draw_seed(self.seed, "dropout", self.task, epoch, step, *own))
                    with nullcontext() if self.sharded else recomputed(network):
                        features = network(pixels.to(dtype))
                    loss = loss_of(features.to(head_dtype), labels, rows)
                monitor.begin(step, loss)
                yield loss * ranks.size() if self.reduced else loss  # the mean over the ranks is to be their sum
                monitor.end(step, written)
                self.position = (epoch, min(done + stride, last))
                self.batches += self.position[1] - done
                self.callbacks.log(f"loss/{phase}", loss.detach(), self.batches)
                monitor.passed(self.position[1])
                costs.apart(self.callbacks.checkpoint_if_due)
            if batches.idle:  # while other ranks have another batch
                self.batches += last - self.position[1]
                self.position = (epoch, last)
                monitor.passed(last)
                costs.apart(self.callbacks.checkpoint_if_due)
        self.tuned.losses.setdefault(phase, []).append(monitor.mean())
        self._monitor = None

    def _new_monitor(self, phase: str, objective: str, batches: int, round_robin: bool) -> EpochMonitor:
        assert self.tuned is not None
        task, epoch = self.task + 1, len(self.tuned.losses.get(phase, [])) + 1
        rates = [self.lr_option, "projector_lr" if objective == "mi" else "classifier_lr"]
        if self.task > 0 and self.options.later_lr_factor != 1:
            rates.insert(0, "later_lr_factor")
        slower = " or ".join(f"--{name.replace('_', '-')} ({getattr(self.options, name):g})" for name in rates)

        def diverged(batch: int, sign: str) -> Diverged:
            untouched = task == epoch == 1 and (phase == "score" or (batch == 0 and sign not in OF_STEP))
            advice = UNTOUCHED if untouched else f"lower {slower}"
            where = f"task {task}, {phase}, epoch {epoch}, batch {batch + 1} of {batches}"
            return Diverged(f"training diverged in {where}: {sign}; {advice}")

        losses, self._losses = self._losses, None
        return EpochMonitor(batches, self.device, diverged, losses, round_robin)

    def _look_closer(self) -> None:
        """Raise `Diverged` after an error in a step if the loss or a gradient of the batch at hand explains it."""
        assert self._monitor is not None
        self._monitor.look_here()
        gradients = [p.grad for _, p in self.named_parameters() if p.grad is not None]
        if gradients and not largest_norm(gradients).isfinite():
            raise self._monitor.diverged(self.position[1], "a gradient is NaN or infinite")

    def state_dict(self) -> dict[str, Any]:
        if self._monitor is not None:
            self._monitor.look()  # nothing damaged is saved
        return {
            "task": self.task,
            "tuned": None if self.tuned is None else self.tuned.state_dict(),
            "position": self.position,
            "batches": self.batches,
            "losses": self._losses if self._monitor is None else self._monitor.losses(),
            **self.heads.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.task = msgspec.convert(state["task"], int)
        self.tuned = None if state["tuned"] is None else Tuned.restored(state["tuned"], self.device)
        self.position = msgspec.convert(state["position"], tuple[Count, Count])
        self.batches = msgspec.convert(state["batches"], Count)
        self._losses = state["losses"]
        self.heads.load_state_dict(state)


def tunable(backbone: nn.Module, options: TuningOptions) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of a backbone whose name ``layers`` matches."""
    return [(name, p) for name, p in backbone.named_parameters() if re.search(options.layers, name)]
