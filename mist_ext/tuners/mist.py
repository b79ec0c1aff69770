"""MIST (arXiv 2505.19943): score every parameter, select a few, tune those with most gradients dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.distributed import agreement, partial_sums
from mist_ext.distributed.gradients import add_up_
from mist_ext.distributed.shard import local
from mist_ext.indices import NEVER
from mist_ext.kernels import ops
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity
from mist_ext.tuners.changes import tensor_records
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuned

NOTHING_SCORED = (
    "every score is 0: the task's images give the objective no gradient, as a single one does, which has no other to "
    "be told from; give the task more images"
)


class MIST(SparseTuner):
    """Per task: score, select, tune (`SparseTuner.tune`), finish.

    The entries with the very highest scores are frozen once their task ends. That is in the published code, not in the
    paper's text; fully selected tensors are left out of it.

    Attributes
    ----------
    to_freeze : Selection
        The entries to freeze when the task at hand ends.
    """

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.to_freeze = Selection({}, {})
        self._scores: dict[str, Any] | None = None  # the sums of an unfinished scoring epoch

    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Select the entries with the highest scores, and among them those to freeze when the task ends."""
        scores = self.score(images)
        for name, bits in self.history.frozen.items():
            own = local(scores[name]).view(-1)
            own[ops.unpack_bits(bits.to(self.device), len(own))] = NEVER
        selection = Selection.from_scores(scores, **self.rule)
        if self.options.freeze_rate:
            by_score = {name: scores[name] for name in selection.by_score}
            self.to_freeze = Selection.from_scores(by_score, self.options.freeze_rate, vectors=False)
        tuned.selection = tensor_records(selection, self.backbone, scores)
        return selection

    def score(self, images: Dataset) -> dict[str, Tensor]:
        """Return the sums of squared gradients over one epoch without any update."""
        frozen = {name: bits.to(self.device) for name, bits in self.history.frozen.items()}
        with Sensitivity(self.named_parameters(), frozen, scores=self._scores) as sensitivity:
            self._scores = sensitivity.scores()
            for loss in self.epoch(images, 0, "score", "score", self.options.score_objective):
                loss.backward()
        scores, self._scores = self._scores, None
        if not self.sharded:  # else they are sums over the ranks already
            add_up_(scores.values())
            if not any(score.any() for score in scores.values()):
                raise agreement.on_every_rank(ValueError(NOTHING_SCORED))
        return scores

    def finish_task(self, selection: Selection) -> None:
        super().finish_task(selection)
        self.history.freeze(self.to_freeze)
        self.to_freeze = Selection({}, {})

    def written(self) -> Iterable[Tensor]:
        return super().written() if self._scores is None else self._scores.values()

    def state_dict(self) -> dict[str, Any]:
        scores = self._scores
        return {
            **super().state_dict(),
            # Of a sharded backbone they are sums over the ranks already.
            "scores": scores if self.sharded or not scores else {n: partial_sums.saved(s) for n, s in scores.items()},
            "to_freeze": self.to_freeze.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._scores = state["scores"]
        if self._scores and not self.sharded:
            sizes = {name: p.numel() for name, p in self.named_parameters()}
            self._scores = {n: partial_sums.restored(kept, sizes[n]) for n, kept in self._scores.items()}
        self.to_freeze = self.restored_selection(state["to_freeze"])
