"""MIST with entries selected at random: the same budget, epochs and dynamics, to see what the scores are worth."""

from __future__ import annotations

from torch.utils.data import Dataset

from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.tuners.changes import described
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.tuner import Pause, Track, Tuned, never, untracked


class Random(MIST):
    """As many entries of each tensor as MIST selects, drawn anew for every task. Without scores nothing is frozen."""

    def select(
        self, images: Dataset, tuned: Tuned, track: Track = untracked, pause: Pause = never
    ) -> tuple[Selection, Selection]:
        """Draw the entries to tune."""
        seed = draw_seed(self.seed, "selection", self.task)
        selection = Selection.random(self.named_parameters(), self.options.rate, seed, self.whole)
        tuned.selected_fraction = selection.selected_fraction
        tuned.selection = described(selection, self.backbone)
        return selection, Selection({}, {})
