"""RanPAC: a random projection, and a ridge regression that all tasks add to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.method import Method

RIDGES = tuple(10.0**exponent for exponent in range(-8, 9))
_PROJECTION, _ROW_ORDER = 0, 1  # what a random draw is for: each purpose has a generator of its own


class RanPAC(Method):
    """Random projections and pre-trained models, without the adapters of its phase 1.

    With W [d, M] ~ N(0, 1) drawn once, h = relu(f W) and one-hot targets Y, every task adds to the Gram
    matrix and to the class sums, and solves for new weights (McDonnell et al., "RanPAC: Random Projections
    and Pre-trained Models for Continual Learning", arXiv 2307.02251, algorithm 1)::

        G += h^T h        Q += h^T Y        weights = (G + lambda I)^-1 Q        class = argmax h weights

    lambda is chosen anew in each task, by the squared error on the last fifth of the task's rows in shuffled
    order after a fit on the first four fifths, the smallest one where errors are equal. The published code
    solves one dense system of size M for every lambda; here one eigendecomposition of the fitted part's
    smaller Gram matrix serves all of them. Targets span all classes, as published: the columns of classes
    that the task lacks have no error for any lambda.

    A task with a single row has nothing to choose lambda by: the earlier choice stays, or 1 at the start.

    Everything is float64, on CUDA too: eigenvalues of G reach 10^7 and more, and lambda may be 10^-8, which
    float32 (let alone TF32) cannot hold in one sum.

    Parameters
    ----------
    width : int
        M, the number of random features. 10,000 is published for a ViT-B/16 (d = 768); G has width^2 entries.
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
        W [d, M] (float32), G [M, M], Q [M, classes] and the weights [M, classes] (float64).
    tasks : int
        The number of tasks learned.
    """

    draws = True
    _fixed = ("width", "seed")
    _predicting = ("counts", "projection", "weights")
    _state = ("counts", "projection", "gram", "cross", "weights", "ridge", "tasks")

    def __init__(
        self, width: int = 2000, ridges: Sequence[float] = RIDGES, fit_fraction: float = 0.8, seed: int = 1993
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
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.cross = torch.zeros(width, 0, dtype=torch.float64)
        self.weights = self.cross

    @property
    def _width(self) -> int:
        return self.projection.shape[0]

    def _learn(self, features: Tensor, targets: Tensor) -> None:
        if not self._width:
            drawn = torch.randn(features.shape[1], self.width, generator=self._generator(_PROJECTION))
            self.projection = drawn.to(features.device)
        order = torch.randperm(len(features), generator=self._generator(_ROW_ORDER, self.tasks))
        order = order.to(features.device)
        hidden, targets = self._project(features[order]), targets[order]
        fitted = int(len(hidden) * self.fit_fraction)
        if fitted:
            self.ridge = best_ridge(hidden, targets, fitted, self.ridges)
        self.gram.addmm_(hidden.T, hidden)
        self.cross = functional.pad(self.cross, (0, targets.shape[1] - self.cross.shape[1]))
        self.cross.addmm_(hidden.T, targets)
        self.weights = solve_ridge(self.gram, self.cross, self.ridge)
        self.tasks += 1

    def _scores(self, features: Tensor) -> Tensor:
        return self._project(features) @ self.weights

    def _project(self, features: Tensor) -> Tensor:
        return (features @ self.projection.to(features.dtype)).relu_()

    def _generator(self, *purpose: int) -> torch.Generator:
        # A pure function of (seed, purpose, task): a run that goes on from a checkpoint draws what it would
        # have drawn.
        mixed = numpy.random.SeedSequence([self.seed, *purpose]).generate_state(1, numpy.uint64)
        return torch.Generator().manual_seed(int(mixed[0] >> 1))


def best_ridge(hidden: Tensor, targets: Tensor, fitted: int, ridges: Sequence[float]) -> float:
    """The ridge with the least squared error on held-out rows.

    The fit's Gram matrix is decomposed once. With the fitted rows H = U S V^T, the prediction of a held-out
    row x is ``x V S (S^2 + lambda)^-1 U^T Y``: only the diagonal depends on lambda. S^2 and V come from H^T
    H, or S^2 and U from H H^T, whichever is smaller.

    Parameters
    ----------
    hidden : Tensor
        float64, ``[n, M]``.
    targets : Tensor
        float64, ``[n, classes]``.
    fitted : int
        The first rows are fitted, the others held out; both parts need at least one row.
    ridges : sequence of float
        Positive. Of several with the same error the first is taken.

    Returns
    -------
    float
        One of `ridges`.
    """
    fit, held_out = hidden[:fitted], hidden[fitted:]
    if fitted <= hidden.shape[1]:
        spectrum, vectors = _eigh(fit @ fit.T)
        left, right = held_out @ fit.T @ vectors, vectors.T @ targets[:fitted]
    else:
        spectrum, vectors = _eigh(fit.T @ fit)
        left, right = held_out @ vectors, vectors.T @ (fit.T @ targets[:fitted])
    errors = [
        functional.mse_loss(left @ (right / (spectrum + ridge).unsqueeze(1)), targets[fitted:]) for ridge in ridges
    ]
    return ridges[int(torch.stack(errors).argmin())]


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Solve ``(gram + ridge I) weights = cross`` for a Gram matrix, in float64.

    By Cholesky factorisation. Where that fails (rounding can make a singular Gram matrix indefinite, and a
    small ridge is lost beside large entries) by eigendecomposition, without the directions that rounding
    alone has left.

    Parameters
    ----------
    gram : Tensor
        ``[M, M]``, symmetric, positive semi-definite up to rounding; only its lower triangle is read.
    cross : Tensor
        ``[M, classes]``.
    ridge : float
        Positive.

    Returns
    -------
    Tensor
        ``[M, classes]``.
    """
    shifted = gram.clone()
    shifted.diagonal().add_(ridge)
    factor, info = torch.linalg.cholesky_ex(shifted)
    if int(info) == 0:
        return torch.cholesky_solve(cross, factor)
    spectrum, vectors = _eigh(gram)
    return vectors @ ((vectors.T @ cross) / (spectrum + ridge).unsqueeze(1))


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a Gram matrix, cut at its numerical rank.

    Below the cut-off (that of numpy.linalg.matrix_rank) an eigenvalue is rounding error, which a ridge of
    10^-8 would blow up.
    """
    spectrum, vectors = torch.linalg.eigh(gram)
    kept = spectrum > spectrum[-1] * len(spectrum) * torch.finfo(gram.dtype).eps
    return spectrum[kept], vectors[:, kept]
