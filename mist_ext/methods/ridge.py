"""Ridge regressions of RanPAC: which ridge a task's held-out rows prefer, and the weights of all rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.methods.gram import Factored, add_gram_, pivoted_cholesky, rounding


def best_ridge(hidden: Tensor, targets: Tensor, fitted: int, ridges: Sequence[float]) -> float:
    """The ridge with the least squared error on held-out rows.

    With the fitted rows H and their targets Y, a held-out row x is predicted as ``x (H^T H + ridge I)^-1 H^T Y``, which
    is ``x H^T (H H^T + ridge I)^-1 Y``: one Cholesky factorisation a ridge of whichever Gram matrix is smaller. Ridges
    that rounding hides in it (17 published ones begin at 1e-8, where eigenvalues reach 1e10) share one factorisation,
    that of the rounding itself, and so one error.

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
    present = targets[:fitted].any(dim=0)  # another class is predicted as zero by every ridge
    known, wanted = targets[:fitted, present], targets[fitted:, present]
    dual = fitted <= hidden.shape[1]
    size = fitted if dual else hidden.shape[1]
    gram = hidden.new_zeros(size, size)
    add_gram_(gram, fit.T if dual else fit)
    cross = known if dual else fit.T @ known
    least = rounding(gram)
    solutions = {}
    for shift in {max(ridge, least): None for ridge in ridges}:
        with Factored(gram, shift) as factored:
            if not factored.complete:
                raise torch.linalg.LinAlgError(f"a Gram matrix plus {shift:g} I is not positive definite")
            solutions[shift] = factored.solve(cross)
    stacked = torch.cat(list(solutions.values()), dim=1)
    predicted = torch.linalg.multi_dot([held_out, fit.T, stacked]) if dual else held_out @ stacked
    errors = {
        shift: (part - wanted).square().sum()
        for shift, part in zip(solutions, predicted.split(wanted.shape[1], dim=1), strict=True)
    }
    return ridges[int(torch.stack([errors[max(ridge, least)] for ridge in ridges]).argmin())]


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Solve ``(gram + ridge I) weights = cross`` for a Gram matrix, in float64.

    By Cholesky factorisation, in the matrix's own memory. Where the ridge is lost beside large entries and rounding has
    left the matrix singular or indefinite, the directions that rounding alone has made are left out: what remains is
    ``factor^T factor`` with a narrow factor, in whose range ``cross`` lies.

    Parameters
    ----------
    gram : Tensor
        ``[M, M]``, symmetric, positive semi-definite up to rounding. Changed meanwhile, the same bits afterwards.
    cross : Tensor
        ``[M, classes]``.
    ridge : float
        Positive.

    Returns
    -------
    Tensor
        ``[M, classes]``.
    """
    least = rounding(gram)
    with Factored(gram, ridge) as factored:
        if factored.complete and (ridge > least or factored.least_pivot() > least):
            return factored.solve(cross)
    factor, pivots = pivoted_cholesky(gram, least)
    coefficients = torch.linalg.solve_triangular(factor[:, pivots].T, cross[pivots], upper=False)
    small = factor @ factor.T
    small.diagonal().add_(ridge)
    return factor.T @ torch.cholesky_solve(coefficients, torch.linalg.cholesky(small))
