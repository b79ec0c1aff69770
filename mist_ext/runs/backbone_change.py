"""What tuning on a task does to the backbone, whatever the method that follows: three numbers a task, from features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.results.record import BackboneRecord
from mist_ext.runs.features import Labelled

PENALTIES = np.logspace(-2, 4, 7)  # of the probe: wide enough for features of any scale


class BackboneChange:
    """Keeps the features of earlier tasks' test images from task to task, to see how far tuning moves them.

    Attributes
    ----------
    earlier : list of Tensor
        The features ``[n, d]`` of each task's test images, as the backbone gave them after the last task.
    """

    def __init__(self) -> None:
        self.earlier: list[Tensor] = []

    def measure(self, train: Labelled, tests: Sequence[Labelled], letters: tuple[Labelled, Labelled]) -> BackboneRecord:
        """Measure a task once its tuning is done.

        Parameters
        ----------
        train : tuple
            Of the task's own training images.
        tests : sequence of tuple
            Of the test images of every task so far, this one last.
        letters : tuple
            The two parts of `mist_ext.data.letters.letters`.

        Returns
        -------
        BackboneRecord
            ``drift`` (`mean_cosine`; None on the first task), ``letters``
            (`linear_probe_accuracy`) and ``plasticity`` (`new_classes_accuracy`), the last two in percent.
        """
        # Where a broken image was replaced between two halves of a run, the rows do not correspond.
        pairs = [(b, a) for b, (a, _) in zip(self.earlier, tests, strict=False) if len(b) == len(a)]
        self.earlier = [features for features, _ in tests]
        return BackboneRecord(
            drift=mean_cosine(torch.cat([b for b, _ in pairs]), torch.cat([a for _, a in pairs])) if pairs else None,
            letters=linear_probe_accuracy(*letters),
            plasticity=new_classes_accuracy(train, tests[-1]),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"earlier": list(self.earlier)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.earlier = list(state["earlier"])


def mean_cosine(before: Tensor, after: Tensor) -> float:
    """Return the mean cosine between two features ``[n, d]`` of the same images: 1 where nothing has moved."""
    before, after = before.double().to(after.device), after.double()
    products = (before * after).sum(dim=1)
    # One root of both squares: exactly 1 for equal features.
    return float((products / ((before * before).sum(dim=1) * (after * after).sum(dim=1)).sqrt()).mean())


def linear_probe_accuracy(train: Labelled, test: Labelled) -> float:
    """Return a ridge classifier's accuracy in percent, its penalty chosen by leave-one-out on the training images."""
    from sklearn.linear_model import RidgeClassifierCV

    (x, y), (held_out, labels) = ((f.double().cpu().numpy(), t.cpu().numpy()) for f, t in (train, test))
    return 100 * float((RidgeClassifierCV(alphas=PENALTIES).fit(x, y).predict(held_out) == labels).mean())


def new_classes_accuracy(train: Labelled, test: Labelled) -> float:
    """Return the accuracy in percent among a task's classes alone, by class means and cosine.

    The accuracy matrix's diagonal is another number: there the earlier classes compete, so it also falls where nothing
    is wrong with the new features.
    """
    first = int(train[1].min())
    classifier = SimpleCIL()
    classifier.learn(train[0], train[1] - first)
    return 100 * float((classifier.predict(test[0]) == test[1] - first).double().mean())
