"""MIST (arXiv 2505.19943): score every parameter, select a few, tune those with most gradients dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.distributed import agreement, partial_sums
from mist_ext.distributed.gradients import add_up_
from mist_ext.distributed.shard import local
from mist_ext.indices import NEVER
from mist_ext.kernels import ops
from mist_ext.parameters import consecutive_parts
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity
from mist_ext.tuners.changes import score_sums, tensor_records
from mist_ext.tuners.freezing import all_frozen_but
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuned

NOTHING_SCORED = (
    "every score is 0: the task's images give the objective no gradient, as a single one does, which has no other to "
    "be told from; give the task more images"
)


class MIST(SparseTuner):
    """Per task: score, select, tune (`SparseTuner.tune`), finish.

    The entries with the very highest scores are frozen once their task ends. That is in the published code, not in the
    paper's text; fully selected tensors are left out of it. Where ``score_passes`` asks for several passes, each goes
    through the same batches and scores other tensors.

    Attributes
    ----------
    to_freeze : Selection
        The entries to freeze when the task at hand ends.
    scored : Selection
        What the finished passes of an unfinished selection have chosen; empty at other times.
    """

    def __init__(self, backbone: nn.Module, options: TuningOptions, seed: int) -> None:
        super().__init__(backbone, options, seed)
        self.to_freeze = self.scored = Selection({}, {})
        self._sums: dict[str, tuple[float, float]] = {}  # of the scores of what is in `scored`
        self._scores: dict[str, Any] | None = None  # of an unfinished pass

    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Select the entries with the highest scores, and among them those to freeze when the task ends."""
        for part in self.passes():
            if part.keys() <= self.scored.keys():
                continue  # before an interruption
            scores = self.score(images, part)
            for name, bits in self.frozen(part).items():
                own = local(scores[name]).view(-1)
                own[ops.unpack_bits(bits, len(own))] = NEVER
            selection = Selection.from_scores(scores, **self.rule)
            if self.options.freeze_rate:
                by_score = {name: scores[name] for name in selection.by_score}
                frozen = Selection.from_scores(by_score, self.options.freeze_rate, vectors=False)
                self.to_freeze = self.to_freeze.followed_by(frozen)
            self.scored = self.scored.followed_by(selection)
            self._sums |= score_sums(selection, scores)
            self.position, tuned.losses["score"] = (0, 0), tuned.losses["score"][:1]
        selection, sums = self.scored, self._sums
        self.scored, self._sums = Selection({}, {}), {}
        tuned.selection = tensor_records(selection, self.backbone, sums)
        return selection

    def passes(self) -> list[dict[str, nn.Parameter]]:
        """Return what each pass scores: consecutive parameters of the backbone, in each about as many entries.

        The objectives' own layers, which are fully selected, come with the last.
        """
        pairs = self.tunable()
        parts = [dict(part) for part in consecutive_parts(pairs, self.options.score_passes)]
        parts[-1] |= dict(self.named_parameters()[len(pairs) :])
        return parts

    def frozen(self, part: Iterable[str]) -> dict[str, Tensor]:
        """Return the bits of the frozen entries of some parameters, on the backbone's device."""
        return {name: bits.to(self.device) for name, bits in self.history.frozen.items() if name in part}

    def score(self, images: Dataset, part: Mapping[str, nn.Parameter] | None = None) -> dict[str, Tensor]:
        """Return the sums of squared gradients over an epoch, of a part of the parameters or of all; update nothing."""
        part = dict(self.named_parameters()) if part is None else part
        with (
            all_frozen_but(part.values(), [p for _, p in self.named_parameters()]),
            Sensitivity(part.items(), self.frozen(part), scores=self._scores) as sensitivity,
        ):
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
            "scored": self.scored.state_dict(),
            "sums": self._sums,
            "to_freeze": self.to_freeze.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._scores = state["scores"]
        if self._scores and not self.sharded:
            sizes = {name: p.numel() for name, p in self.named_parameters()}
            self._scores = {n: partial_sums.restored(kept, sizes[n]) for n, kept in self._scores.items()}
        self.scored = self.restored_selection(state["scored"])
        self._sums = msgspec.convert(state["sums"], dict[str, tuple[float, float]])
        self.to_freeze = self.restored_selection(state["to_freeze"])
