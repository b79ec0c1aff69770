"""Entries selected at random: MIST's budget, epochs and dynamics, to see what its scores are worth."""

from __future__ import annotations

from torch.utils.data import Dataset

from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.tuners.changes import tensor_records
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuned


class Random(SparseTuner):
    """As many entries of each tensor as MIST selects, drawn anew for every task. Without scores nothing is frozen."""

    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Draw the entries to tune."""
        seed = draw_seed(self.seed, "selection", self.task)
        selection = Selection.random(self.named_parameters(), seed=seed, **self.rule)
        tuned.selection = tensor_records(selection, self.backbone)
        return selection
