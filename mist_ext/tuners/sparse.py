"""What tuners of a sparse selection share: each task selects entries anew, and most of their gradients are dropped."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.distributed import ranks
from mist_ext.distributed.shard import local
from mist_ext.optim import InBackward, MaskedGradient, SampledGradients, SparseExchange, SparseSGD
from mist_ext.results.record import Count
from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.system.renamed import Renamed
from mist_ext.tuners.changes import kept_fraction, measure_step
from mist_ext.tuners.contrastive import ContrastiveTuner
from mist_ext.tuners.freezing import all_frozen_but
from mist_ext.tuners.history import History
from mist_ext.tuners.optimizer_state import load_state
from mist_ext.tuners.tuner import Tuned
from mist_ext.tuners.weight_gradients import can_sample, weight_gradients

WIRES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TakeStep = Callable[[Tensor], None]  # goes backward from a loss, updates, and frees the gradients
Values = Callable[[], Mapping[str, Tensor]]


class SparseTuner(ContrastiveTuner):
    """Per task: `select` entries, tune them, and count a strike against each.

    The first of the options' epochs belongs to the selection, whether it looks at the images or not; the others tune.
    An entry's gradient is scaled by ``strike_factor`` for every earlier task that selected it. That is in MIST's
    published code, not in the paper's text; fully selected tensors are left out of it.

    Attributes
    ----------
    samples : bool
        Class attribute: whether its steps need no other weight gradients than those that the keep rule keeps.
    history : History
        Strikes and frozen entries.
    selection : Selection or None
        The entries that `select` chose for the current task; None between tasks and until it has chosen.
    steps : int
        Steps applied since the run began; the keep rule draws by it.
    weight_gradients : str
        ``sampled`` where backward computes the kept entries of weight gradients alone, else ``dense``. A run that goes
        on has what it began with.
    """

    shardable = True
    samples: ClassVar[bool] = True

    whole = Renamed("fully_selected")

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.history = History(backbone, self.sharded)
        self.selection: Selection | None = None
        self.steps = 0
        self.weight_gradients = weight_gradients(options, self.device, backbone) if self.samples else "dense"
        self.keep_seed = draw_seed(seed, "keep")
        self._optimizers: dict[str, Any] = {}
        self._saved_optimizers: dict[str, Any] = {}  # of a checkpoint, until the task goes on
        self.scale_table = torch.tensor(options.strike_factor, dtype=torch.float64).pow(torch.arange(256)).float()

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        sampled = cls.samples and options.weight_gradients == "sampled" and options.dynamics == "exact"
        if sampled and not can_sample(options, backbone):
            raise ValueError(
                "weight_gradients is 'sampled', but no weight of an nn.Linear of this backbone is tuned, nor of an "
                "nn.Conv2d over patches; use dense, or leave it out"
            )
        if options.in_backward and options.drop == "updates" and ranks.size() > 1:
            raise ValueError(
                "in_backward is True, but drop is 'updates', for which several processes reduce whole gradients once "
                "backward has ended; leave in_backward out, or drop gradients"
            )

    @property
    def exchange(self) -> str:
        """What the ranks exchange in a step of the sparse optimiser."""
        drops_updates = self.options.drop == "updates" and self.options.momentum > 0
        return "dense" if drops_updates else self.options.exchange

    @property
    def fully_selected(self) -> str:
        """The pattern of the tensors to select fully: the options' own, and the objectives' layers."""
        return "|".join(filter(None, (self.options.whole, r"^projector\.", r"^classifier\.")))

    @property
    def rule(self) -> dict[str, Any]:
        """How much of which tensors is selected, as `Selection.from_scores` takes it.

        In published dynamics a vector that is neither a bias nor of a norm, such as LayerScale's, is selected by score.
        """
        exact = self.options.dynamics == "exact"
        return {"rate": self.options.rate, "whole": self.fully_selected, "vectors": exact}

    def tune(self, images: Dataset) -> Tuned:
        with all_frozen_but([p for _, p in self.tunable()], self.backbone.parameters()):
            tuned = self.begin_task(images)
            if self.selection is None:
                with tuned.costs.phase("select"):
                    selection = self.select(images, tuned)
                    tuned.selected_fraction = self.selected_fraction(selection)
                self.selection, self.position = selection, (1, 0)
            self.tune_selection(images, self.selection, tuned)
            self.finish_task(self.selection)
            return self.end_task()

    @abstractmethod
    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Select among `named_parameters` the entries to tune in this task.

        Parameters
        ----------
        images : Dataset
            As in `tune`.
        tuned : Tuned
            Takes what is measured, such as the selection's `changes.tensor_records`.
        """

    def tune_selection(self, images: Dataset, selection: Selection, tuned: Tuned) -> None:
        """Tune the selected entries for the remaining epochs."""
        steps, values = self._steps(selection)
        sizes = {name: p.numel() for name, p in self.backbone.named_parameters()}
        by_score = self.by_score(selection)
        epochs, objective = self.task_epochs, self.options.tune_objective
        parameters = self.named_parameters()
        selected = [p for name, p in parameters if name in selection]
        with all_frozen_but(selected, [p for _, p in parameters]), steps as take_step:
            for epoch in range(self.position[0], epochs):
                for loss in self.epoch(images, epoch, "tune", f"tune {epoch}/{epochs - 1}", objective):
                    if self.position[1] == 0:
                        tuned.kept.append(self.kept_fraction(selection))
                        measure_step(values, sizes, by_score, partial(take_step, loss), tuned, self.sharded)
                    else:
                        take_step(loss)
                    self.steps += 1

    def finish_task(self, selection: Selection) -> None:
        """Keep for later tasks what this one selected; the next begins without."""
        self.history.add_strikes(selection)
        self.selection, self._optimizers = None, {}

    def by_score(self, selection: Selection) -> list[str]:
        """Return the tensors of the backbone of which a few entries are tuned."""
        # Without the objectives' own layers, of which a plug-in may have selected a few entries.
        heads = {name for group in self.head_groups() for name, _ in group["params"]}
        return [name for name in selection.by_score if name not in heads]

    def selected_fraction(self, selection: Selection) -> float:
        """Return the selected entries over all entries of the tensors that are selected by score."""
        return selection.selected_fraction

    def kept_fraction(self, selection: Selection) -> float:
        """Return the entries that keep their gradient in the step at hand, over all entries of those tensors."""
        return kept_fraction(selection, self.options.keep, self.keep_seed, self.steps)

    def _steps(self, selection: Selection) -> tuple[AbstractContextManager[TakeStep], Values]:
        """Return a context with the function that takes a step, and the values that steps change, by name."""
        options = self.options
        drawing: dict[str, Any] = {
            "keep": options.keep,
            "seed": self.keep_seed,
            "step": self.steps,
            "scale_code": self.history.scale_codes(selection),
            "scale_table": self.scale_table,
        }
        sgd: dict[str, Any] = {"momentum": options.momentum, "weight_decay": options.weight_decay}
        saved, self._saved_optimizers = self._saved_optimizers, {}
        if options.dynamics == "exact":
            optimizer = self._sparse_optimizer(selection, **sgd, **drawing)
            self._optimizers = {"sparse": optimizer}
        else:
            masked = MaskedGradient(self.named_parameters(), selection, **drawing)
            dense = torch.optim.SGD(self.groups(self.lr), **sgd)
            self._optimizers = {"masked": masked, "dense": dense}
        for name, state in saved.items():
            load_state(self._optimizers[name], state)
        backbone = dict(self.backbone.named_parameters())
        if options.dynamics == "exact":
            values = {name: optimizer.state.get(p, {}).get("master", local(p)) for name, p in backbone.items()}
            return self._sparse_steps(optimizer), lambda: values
        return self._masked_steps(masked, dense), lambda: backbone

    @contextmanager
    def _sparse_steps(self, optimizer: SparseSGD) -> Iterator[TakeStep]:
        def take_step(loss: Tensor) -> None:
            with self.scheduled(optimizer):
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()

        with ExitStack() as stack:
            for context in self._contexts(optimizer):
                stack.enter_context(context)
            yield take_step

    @contextmanager
    def _masked_steps(self, masked: MaskedGradient, dense: torch.optim.SGD) -> Iterator[TakeStep]:
        def take_step(loss: Tensor) -> None:
            loss.backward()
            masked.apply_()
            with self.scheduled(dense):
                dense.step()
            dense.zero_grad()

        with self.dense_exchange():
            yield take_step

    def _contexts(self, optimizer: SparseSGD) -> list[AbstractContextManager]:
        """Return what the steps of a sparse optimiser are taken within."""
        if self.exchange == "dense" and ranks.size() > 1 and not self.sharded:
            return [self.dense_exchange()]  # whole gradients are reduced when backward has ended
        contexts: list[AbstractContextManager] = []
        if ranks.size() > 1:
            contexts.append(SparseExchange(optimizer, wire=WIRES[self.options.wire], reduce="sum"))
        if self.weight_gradients == "sampled":
            contexts.append(SampledGradients(optimizer, self.backbone))
        elif self.options.in_backward is not False:
            contexts.append(InBackward(optimizer))
        return contexts

    def _sparse_optimizer(self, selection: Selection, **options: Any) -> SparseSGD:
        return SparseSGD(self.groups(self.lr), selection, drop=self.options.drop, **options)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "steps": self.steps,
            "weight_gradients": self.weight_gradients,
            **self.history.state_dict(),
            "selection": None if self.selection is None else self.selection.state_dict(),
            # Those of a checkpoint, while nothing has been made of them.
            "optimizers": self._saved_optimizers
            or {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = msgspec.convert(state["steps"], Count)
        self.weight_gradients = msgspec.convert(state["weight_gradients"], Literal["sampled", "dense"])
        self.history.load_state_dict(state)
        self.selection = None
        if state["selection"] is not None:
            self.selection = self.restored_selection(state["selection"])
            if not self.selection:
                raise ValueError("nothing is selected")
        self._saved_optimizers = state["optimizers"]

    def restored_selection(self, state: dict[str, Any]) -> Selection:
        """Return the selection that a `state_dict` holds; ValueError if it does not fit the parameters."""
        parameters = dict(self.named_parameters())
        selection = Selection.from_state_dict(state, parameters.items())
        if odd := sorted(selection.keys() - parameters.keys()):
            raise ValueError(f"the selection names {odd[0]!r}, which is no parameter")
        return selection
