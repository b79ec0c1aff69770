"""MIST with the largest weights selected: the same budget, epochs and dynamics, without any look at the task."""

from __future__ import annotations

from torch.utils.data import Dataset

from mist_ext.selection import Selection
from mist_ext.tuners.changes import described
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.tuner import Pause, Track, Tuned, never, untracked


class Magnitude(MIST):
    """As many entries of each tensor as MIST selects, those of the largest magnitude when the task begins.

    A step moves few of the largest entries far, so later tasks select nearly the same ones, and MIST's strikes, which
    count here too, slow them down. Without scores nothing is frozen.
    """

    def select(
        self, images: Dataset, tuned: Tuned, track: Track = untracked, pause: Pause = never
    ) -> tuple[Selection, Selection]:
        """Take the largest entries of each tensor."""
        selection = Selection.magnitude(self.named_parameters(), self.options.rate, self.whole)
        tuned.selected_fraction = selection.selected_fraction
        tuned.selection = described(selection, self.backbone)
        return selection, Selection({}, {})
