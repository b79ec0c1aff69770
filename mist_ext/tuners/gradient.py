"""The largest gradients of every step: what MIST's selection by a whole epoch's scores, and its draw, are worth."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import Dataset

from mist_ext.config import TuningOptions
from mist_ext.indices import is_fully_selected, selected_count
from mist_ext.optim import LargestGradientSGD, SparseSGD
from mist_ext.selection import Selection
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuned


class Gradient(SparseTuner):
    """In every step, in each tensor, the entries with the largest absolute gradient follow it; the others stay.

    A step changes as many entries as a step of MIST does on average: rate x keep of the tensors that MIST selects by
    score, keep of those that it selects fully. Equal selections would not be an equal budget, since nothing is dropped
    of what has just been chosen. The objectives' own layers are tuned as MIST tunes them, by the same draws, so that
    the difference lies in the backbone alone. As many epochs update as in MIST. No entry belongs to a task, so there
    are no strikes, and nothing is frozen.
    """

    samples = False
    shardable = False  # which gradients are a tensor's largest shows in the whole one alone

    @classmethod
    def check(cls, backbone: nn.Module, options: TuningOptions) -> None:
        super().check(backbone, options)
        if options.dynamics != "exact":
            raise ValueError(
                f"tuner 'gradient' has exact dynamics only, but dynamics is {options.dynamics!r}: a dense optimiser's "
                "momentum would move entries that no step chose; use --dynamics exact"
            )

    @property
    def exchange(self) -> str:
        """Whole gradients: which entries are the largest shows in the sum alone."""
        return "dense"

    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Select everything: the steps choose."""
        return Selection.whole(self.named_parameters())

    def tune_selection(self, images: Dataset, selection: Selection, tuned: Tuned) -> None:
        try:
            super().tune_selection(images, selection, tuned)
        except RuntimeError:  # what is NaN cannot be ranked
            self._look_closer()
            raise

    def by_score(self, selection: Selection) -> list[str]:
        return [name for name, p in self.tunable() if not is_fully_selected(name, p, self.fully_selected)]

    def selected_fraction(self, selection: Selection) -> float:
        return self.kept_fraction(selection)

    def kept_fraction(self, selection: Selection) -> float:
        sizes = [selection.numel(name) for name in self.by_score(selection)]
        return sum(selected_count(size, self._rate) for size in sizes) / sum(sizes) if sizes else 0.0

    @property
    def _rate(self) -> float:
        return self.options.rate * self.options.keep

    def _sparse_optimizer(self, selection: Selection, **options: Any) -> SparseSGD:
        backbone, *heads = self.groups(self.lr)
        by_score = set(self.by_score(selection))
        few, full = (
            {**backbone, "params": [(name, p) for name, p in backbone["params"] if (name in by_score) == scored]}
            for scored in (True, False)
        )
        few |= {"rate": self._rate, "keep": 1.0}
        full |= {"rate": self.options.keep, "keep": 1.0}
        return LargestGradientSGD([few, full, *heads], selection, **options)
