"""RanPAC: a random projection, and a ridge regression that all tasks add to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.method import PREDICT_ROWS, Method
from mist_ext.methods.ridge import best_ridge, solve_ridge
from mist_ext.system import memory

RIDGES = tuple(10.0**exponent for exponent in range(-8, 9))
WIDTH = 2000  # of the random features, unless another is given
_BYTES = 8  # of a float64
_PROJECTION, _ROW_ORDER = 0, 1  # what a random draw is for: each purpose has a generator of its own


class RanPAC(Method):
    """Random projections and pre-trained models, without phase 1, which `AdaptedRanPAC` has.

    With W [d, M] ~ N(0, 1) drawn once, h = relu(f W) and one-hot targets Y, every task adds to the Gram
    matrix and to the class sums, and solves for new weights (McDonnell et al., "RanPAC: Random Projections
    and Pre-trained Models for Continual Learning", arXiv 2307.02251, algorithm 1)::

        G += h^T h        Q += h^T Y        weights = (G + lambda I)^-1 Q        class = argmax h weights

    lambda is chosen anew in each task, by the squared error on the last fifth of the task's rows in shuffled
    order after a fit on the first four fifths, the smallest one where errors are equal. The published code
    solves one dense system of size M for every lambda; here it is a Cholesky factorisation of the fitted
    part's smaller Gram matrix (`best_ridge`), and one of G for the weights. Targets span all classes, as
    published: the columns of classes that the task lacks have no error for any lambda.

    A task with a single row has nothing to choose lambda by: the earlier choice stays, or 1 at the start.

    Everything is float64, on CUDA too: eigenvalues of G reach 10^10 and more, and lambda may be 10^-8, which
    float32 (let alone TF32) cannot hold in one sum.

    Parameters
    ----------
    width : int
        M, the number of random features. 10,000 is published for a ViT-B/16 (d = 768); G has width^2 entries,
        which exist from the first task on: 800 MB for 10,000 (`memory` tells what a task takes in all).
    ridges : sequence of float
        The values of lambda to choose from, all positive.
    fit_fraction : float
        The share of a task's rows that the choice of lambda fits; the others validate.
    seed : int
        Of W and of the row order. Both are drawn on the CPU, so they are the same on every device.

    Attributes
    ----------
    ridge : float
        The lambda in force.
    projection, gram, cross, weights : Tensor
        W [d, M] (float32), G [M, M], Q [M, classes] and the weights [M, classes] (float64); W and G are empty
        before the first task.
    tasks : int
        The number of tasks learned.
    """

    seeded = True
    fixed_options: ClassVar[tuple[str, ...]] = ("width", "seed")
    recorded_options: ClassVar[Mapping[str, Any]] = MappingProxyType({"width": WIDTH})
    needed_to_predict: ClassVar[tuple[str, ...]] = ("counts", "projection", "weights")
    learned: ClassVar[tuple[str, ...]] = ("counts", "projection", "gram", "cross", "weights", "ridge", "tasks")

    def __init__(
        self, width: int = WIDTH, ridges: Sequence[float] = RIDGES, fit_fraction: float = 0.8, seed: int = 1993
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width}: RanPAC needs at least one random feature")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected a non-negative integer")
        if not ridges or min(ridges) <= 0:
            raise ValueError(f"ridges={list(ridges)}: expected one or more positive numbers")
        if not 0 < fit_fraction < 1:
            raise ValueError(f"fit_fraction={fit_fraction}: expected a number between 0 and 1, both excluded")
        self.width, self.seed = width, seed
        self.ridges, self.fit_fraction = tuple(sorted(ridges)), fit_fraction
        self.ridge = 1.0
        self.tasks = 0
        self.projection = torch.zeros(0, width)
        self.gram = torch.zeros(0, 0, dtype=torch.float64)
        self.cross = torch.zeros(width, 0, dtype=torch.float64)
        self.weights = self.cross

    def memory(self, rows: int, features: int, classes: int) -> int:
        """Return the bytes that this method takes at its peak, for tasks and predictions of at most so many rows.

        G is the bulk, beside it its factor, or before that the task's random features and two Gram matrices that choose
        lambda; W in both precisions, Q, the weights and their solver's copies, and a part of a prediction come on top.
        """
        width, fitted = self.width, min(int(rows * self.fit_fraction), self.width)
        kept = width * width + width * classes * 2 + width * features / 2
        choosing = rows * (width + 2 * features) + width * features + 2 * fitted * fitted
        solving = 2 * rows * features + width * width + 3 * width * classes
        predicting = min(rows, PREDICT_ROWS) * (width + features) + width * features
        return int(_BYTES * (kept + max(choosing, solving, predicting)))

    @property
    def learned_width(self) -> int:
        return self.projection.shape[0]

    def update(self, features: Tensor, targets: Tensor) -> None:
        needed = self.memory(len(features), features.shape[1], targets.shape[1]) - _BYTES * self.gram.numel()
        memory.require(
            needed,
            features.device,
            f"RanPAC with {self.width} random features and a task of {len(features)} rows",
            "lower --method-options width=N (memory grows with its square)",
        )
        if not self.learned_width:
            drawn = torch.randn(features.shape[1], self.width, generator=self._generator(_PROJECTION))
            self.projection = drawn.to(features.device)
            self.gram = features.new_zeros(self.width, self.width)
        order = torch.randperm(len(features), generator=self._generator(_ROW_ORDER, self.tasks))
        order = order.to(features.device)
        hidden, targets = self._project(features[order]), targets[order]
        fitted = int(len(hidden) * self.fit_fraction)
        if fitted:
            self.ridge = best_ridge(hidden, targets, fitted, self.ridges)
        self.gram.addmm_(hidden.T, hidden)
        self.cross = functional.pad(self.cross, (0, targets.shape[1] - self.cross.shape[1]))
        self.cross.addmm_(hidden.T, targets)
        del hidden  # before G's factor comes
        self.weights = solve_ridge(self.gram, self.cross, self.ridge)
        self.tasks += 1

    def score(self, features: Tensor) -> Tensor:
        return self._project(features) @ self.weights

    def _project(self, features: Tensor) -> Tensor:
        return (features @ self.projection.to(features.dtype)).relu_()

    def _generator(self, *purpose: int) -> torch.Generator:
        # A pure function of (seed, purpose, task): a run that goes on from a checkpoint draws what it would
        # have drawn.
        mixed = numpy.random.SeedSequence([self.seed, *purpose]).generate_state(1, numpy.uint64)
        return torch.Generator().manual_seed(int(mixed[0] >> 1))
