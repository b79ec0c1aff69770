"""Ridge regressions of RanPAC: which ridge a task's held-out rows prefer, and the weights of all rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.methods.gram import Factored, add_gram_, pivoted_cholesky, rounding


def best_ridge(hidden: Tensor, targets: Tensor, fitted: int, ridges: Sequence[float]) -> float:
    """The ridge with the least squared error on held-out rows.

    With the fitted rows H and their targets Y, a held-out row x is predicted as ``x (H^T H + ridge I)^-1 H^T Y``, which
    is ``x H^T (H H^T + ridge I)^-1 Y``: it takes Cholesky factorisations of whichever Gram matrix is smaller, and one
    serves all ridges that are small beside its eigenvalues. Ridges that rounding hides in it (the 17 published ones
    begin at 1e-8, where eigenvalues reach 1e10) count as the rounding itself, and so have one error. Where eigenvalues
    stand well above the rounding, the error is a straight line over these, so the best ridge is the least or none of
    them.

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
    solutions: dict[float, Tensor] = {}
    factored = None
    for shift in sorted({max(ridge, least) for ridge in ridges}):
        solved = factored.solve_nearby(gram, shift, cross) if factored is not None else None
        if solved is None:
            factored = None  # gives its memory back first
            factored = Factored(gram.clone(), shift)
            if not factored.complete:
                raise torch.linalg.LinAlgError(f"a Gram matrix plus {shift:g} I is not positive definite")
            solved = factored.solve(cross)
        solutions[shift] = solved
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
