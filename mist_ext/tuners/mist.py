"""MIST (arXiv 2505.19943): score every parameter, select a few, tune those with most gradients dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.distributed import agreement, partial_sums, ranks
from mist_ext.distributed.gradients import add_up_
from mist_ext.distributed.shard import local
from mist_ext.kernels import ops
from mist_ext.optim import InBackward, MaskedGradient, SparseExchange, SparseSGD
from mist_ext.results.record import Count
from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity
from mist_ext.tuners.changes import described, kept_fraction, measure_step
from mist_ext.tuners.contrastive import ContrastiveTuner
from mist_ext.tuners.freezing import all_frozen_but
from mist_ext.tuners.history import History
from mist_ext.tuners.optimizer_state import load_state
from mist_ext.tuners.tuner import Pause, Track, Tuned, never, untracked

NOTHING_SCORED = (
    "every score is 0: the task's images give the objective no gradient, as a single one does, which has no other to "
    "be told from; give the task more images"
)
WIRES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TakeStep = Callable[[Tensor], None]  # goes backward from a loss, updates, and frees the gradients
Values = Callable[[], Mapping[str, Tensor]]


@contextmanager
def _sparse_steps(optimizer: SparseSGD, contexts: list[AbstractContextManager]) -> Iterator[TakeStep]:
    def take_step(loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield take_step


@contextmanager
def _masked_steps(
    masked: MaskedGradient, dense: torch.optim.SGD, exchange: AbstractContextManager
) -> Iterator[TakeStep]:
    def take_step(loss: Tensor) -> None:
        loss.backward()
        masked.apply_()
        dense.step()
        dense.zero_grad()

    with exchange:
        yield take_step


class MIST(ContrastiveTuner):
    """Per task: score, select, tune, finish.

    Between tasks an entry's gradient is scaled by ``strike_factor`` for every earlier task that selected it, and the
    entries with the very highest scores are frozen. That is in the published code, not in the paper's text; tensors
    that are selected whole are left out of both.

    Attributes
    ----------
    history : History
        Strikes and frozen entries.
    steps : int
        Steps applied since the run began; the keep rule draws by it.
    """

    shardable = True

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.history = History(backbone, self.sharded)
        self.steps = 0
        self.keep_seed = draw_seed(seed, "keep")
        # Of the task at hand: sums of an unfinished scoring epoch, then what is tuned and by which optimisers.
        self._scores: dict[str, Any] | None = None
        self._selection: Selection | None = None
        self._to_freeze = Selection({}, {})
        self._optimizers: dict[str, Any] = {}
        self._saved_optimizers: dict[str, Any] = {}
        self.scale_table = torch.tensor(options.strike_factor, dtype=torch.float64).pow(torch.arange(256)).float()

    @property
    def exchange(self) -> str:
        """What the ranks exchange in a step of the sparse optimiser."""
        return self.options.exchange

    @property
    def whole(self) -> str:
        """The pattern of the tensors that are selected whole: the options' own, and the objectives' layers."""
        return "|".join(filter(None, (self.options.whole, r"^projector\.", r"^classifier\.")))

    def written(self) -> Iterable[Tensor]:
        return super().written() if self._scores is None else self._scores.values()

    def tune(self, images: Dataset, track: Track = untracked, pause: Pause = never) -> Tuned:
        with all_frozen_but([p for _, p in self.tunable()], self.backbone.parameters()):
            return self._tune(images, track, pause)

    def _tune(self, images: Dataset, track: Track, pause: Pause) -> Tuned:
        tuned = self.begin_task(images)
        if self._selection is None:
            with tuned.costs.phase("select"):
                self._selection, self._to_freeze = self.select(images, tuned, track, pause)
            self.position = (1, 0)
        self.apply(images, self._selection, tuned, track, pause)
        self.history.add(self._selection, self._to_freeze)
        self._selection, self._optimizers = None, {}
        return self.end_task()

    def select(
        self, images: Dataset, tuned: Tuned, track: Track = untracked, pause: Pause = never
    ) -> tuple[Selection, Selection]:
        """Score for one epoch without any update, then select the entries to tune and those to freeze afterwards."""
        frozen = {name: bits.to(self.device) for name, bits in self.history.frozen.items()}
        with Sensitivity(self.named_parameters(), frozen, scores=self._scores) as sensitivity:
            self._scores = sensitivity.scores()
            for loss in self.epoch(images, 0, "score", "score", self.options.score_objective, track, pause):
                loss.backward()
        scores, self._scores = self._scores, None
        if not self.sharded:  # else they are sums over the ranks already
            add_up_(scores.values())
            if not any(score.any() for score in scores.values()):
                raise agreement.on_every_rank(ValueError(NOTHING_SCORED))
        for name, bits in frozen.items():  # behind every entry that may be tuned, even one of score 0
            own = local(scores[name]).view(-1)
            own[ops.unpack_bits(bits, len(own))] = -1
        selection = Selection.from_scores(scores, self.options.rate, self.whole)
        to_freeze = self._highest({name: scores[name] for name in selection.by_score})
        tuned.selected_fraction = selection.selected_fraction
        tuned.selection = described(selection, self.backbone, scores)
        return selection, to_freeze

    def _highest(self, scores: dict[str, Tensor]) -> Selection:
        if not self.options.freeze_rate:
            return Selection({}, {})
        return Selection.from_scores(scores, self.options.freeze_rate)

    def apply(
        self,
        images: Dataset,
        selection: Selection,
        tuned: Tuned,
        track: Track = untracked,
        pause: Pause = never,
    ) -> None:
        """Tune the selected entries for the remaining epochs."""
        steps, values = self._steps(selection)
        sizes = {name: p.numel() for name, p in self.backbone.named_parameters()}
        by_score = self.by_score(selection)
        epochs, objective = self.options.epochs, self.options.tune_objective
        parameters = self.named_parameters()
        tuned_ones = [p for name, p in parameters if name in selection]
        with all_frozen_but(tuned_ones, [p for _, p in parameters]), steps as take_step:
            for epoch in range(self.position[0], epochs):
                description = f"tune {epoch}/{epochs - 1}"
                for loss in self.epoch(images, epoch, "tune", description, objective, track, pause):
                    if self.position[1] == 0:
                        tuned.kept.append(self.kept_fraction(selection))
                        measure_step(values, sizes, by_score, partial(take_step, loss), tuned, self.sharded)
                    else:
                        take_step(loss)
                    self.steps += 1

    def by_score(self, selection: Selection) -> list[str]:
        """The tensors of the backbone of which a few entries are tuned."""
        return self._of_backbone(selection.by_score)

    def _of_backbone(self, names: list[str]) -> list[str]:
        """Without the objectives' own layers, of which a plug-in may have selected a few entries."""
        heads = {name for group in self.head_groups() for name, _ in group["params"]}
        return [name for name in names if name not in heads]

    def kept_fraction(self, selection: Selection) -> float:
        """Entries that keep their gradient in the step at hand, over all entries of those tensors."""
        return kept_fraction(selection, self.options.keep, self.keep_seed, self.steps)

    def _steps(self, selection: Selection) -> tuple[AbstractContextManager[TakeStep], Values]:
        """A context with what goes backward from a loss and takes a step, and the values it changes, by name."""
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
            dense = torch.optim.SGD(self.groups(options.lr), **sgd)
            self._optimizers = {"masked": masked, "dense": dense}
        for name, state in saved.items():
            load_state(self._optimizers[name], state)
        backbone = dict(self.backbone.named_parameters())
        if options.dynamics == "exact":
            values = {name: optimizer.state.get(p, {}).get("master", local(p)) for name, p in backbone.items()}
            return _sparse_steps(optimizer, self._contexts(optimizer)), lambda: values
        return _masked_steps(masked, dense, self.dense_exchange()), lambda: backbone

    def _contexts(self, optimizer: SparseSGD) -> list[AbstractContextManager]:
        """What the steps of a sparse optimiser are taken within."""
        dense = self.exchange == "dense" and ranks.size() > 1 and not self.sharded
        if dense:  # whole gradients are reduced when backward has ended
            return [self.dense_exchange()]
        contexts: list[AbstractContextManager] = []
        if ranks.size() > 1:
            contexts.append(SparseExchange(optimizer, wire=WIRES[self.options.wire], reduce="sum"))
        if self.options.in_backward is not False:
            contexts.append(InBackward(optimizer))
        return contexts

    def _sparse_optimizer(self, selection: Selection, **options: Any) -> SparseSGD:
        return SparseSGD(self.groups(self.options.lr), selection, **options)

    def state_dict(self) -> dict[str, Any]:
        selection, scores = self._selection, self._scores
        return {
            **super().state_dict(),
            "steps": self.steps,
            **self.history.state_dict(),
            # Of a sharded backbone they are sums over the ranks already.
            "scores": scores if self.sharded or not scores else {n: partial_sums.saved(s) for n, s in scores.items()},
            "selection": None if selection is None else selection.state_dict(),
            "to_freeze": None if selection is None else self._to_freeze.state_dict(),
            # Those of a checkpoint, while nothing has been made of them.
            "optimizers": self._saved_optimizers
            or {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = msgspec.convert(state["steps"], Count)
        self.history.load_state_dict(state)
        self._scores = state["scores"]
        if self._scores and not self.sharded:
            sizes = {name: p.numel() for name, p in self.named_parameters()}
            self._scores = {n: partial_sums.restored(kept, sizes[n]) for n, kept in self._scores.items()}
        if state["selection"] is not None:
            self._selection, self._to_freeze = Selection({}, {}), Selection({}, {})
            self._selection.load_state_dict(state["selection"], self.named_parameters())
            self._to_freeze.load_state_dict(state["to_freeze"], self.named_parameters())
            known = {name for name, _ in self.named_parameters()}
            if odd := sorted({*self._selection, *self._to_freeze} - known):
                raise ValueError(f"the selection names {odd[0]!r}, which is no parameter")
            if not self._selection:
                raise ValueError("nothing is selected")
        self._saved_optimizers = state["optimizers"]
