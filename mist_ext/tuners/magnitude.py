"""The largest weights selected: MIST's budget, epochs and dynamics, without any look at the task."""

from __future__ import annotations

from torch.utils.data import Dataset

from mist_ext.selection import Selection
from mist_ext.tuners.changes import tensor_records
from mist_ext.tuners.sparse import SparseTuner
from mist_ext.tuners.tuner import Tuned


class Magnitude(SparseTuner):
    """As many entries of each tensor as MIST selects, those of the largest magnitude when the task begins.

    A step moves few of the largest entries far, so later tasks select nearly the same ones, and strikes slow them down
    as they do in MIST. Without scores nothing is frozen.
    """

    def select(self, images: Dataset, tuned: Tuned) -> Selection:
        """Take the largest entries of each tensor."""
        selection = Selection.magnitude(self.named_parameters(), **self.rule)
        tuned.selection = tensor_records(selection, self.backbone)
        return selection
