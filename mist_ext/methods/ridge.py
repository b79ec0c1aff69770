"""Ridge regressions of RanPAC: which ridge a task's held-out rows prefer, and the weights of all rows.

One `torch.linalg.cholesky_ex` for each of 17 ridges and one for the weights took 2.4 s of processor time, where a
blocked factorisation in the matrix's own memory, with refinement between ridges, took 4.4 s and `eigh` at least 8 s
(width 2000, two tasks of 630 rows, 100 classes), and 56 against 53 s at width 10,000 with 5000 rows. It keeps one more
matrix than that did.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.system import memory

_FACTOR_ROWS = 512  # that a factor of unknown rank begins with


def best_ridge(hidden: Tensor, targets: Tensor, fitted: int, ridges: Sequence[float]) -> float:
    """Return the ridge with the least squared error on held-out rows.

    With the fitted rows H and their targets Y, a held-out row x is predicted as ``x (H^T H + ridge I)^-1 H^T Y``, which
    is ``x H^T (H H^T + ridge I)^-1 Y``: each ridge takes a Cholesky factorisation of the smaller Gram matrix.
    Ridges that rounding hides in it (the 17 published ones begin at 1e-8, where eigenvalues reach 1e10) count as the
    rounding itself, and so have one error.

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

    Raises
    ------
    LinAlgError
        If the Gram matrix is not positive semi-definite, as where a row is not finite.
    """
    fit, held_out = hidden[:fitted], hidden[fitted:]
    present = targets[:fitted].any(dim=0)  # another class is predicted as zero by every ridge
    known, wanted = targets[:fitted, present], targets[fitted:, present]
    if fitted <= hidden.shape[1]:
        gram, cross, held_out = fit @ fit.T, known, held_out @ fit.T
    else:
        gram, cross = fit.T @ fit, fit.T @ known
    least = rounding(gram)
    errors = {}
    for shift in {max(ridge, least) for ridge in ridges}:
        factor = _cholesky(gram, shift)
        if factor is None:
            raise torch.linalg.LinAlgError(f"a Gram matrix plus {shift:g} I is not positive definite")
        errors[shift] = (held_out @ torch.cholesky_solve(cross, factor) - wanted).square().sum()
    return ridges[int(torch.stack([errors[max(ridge, least)] for ridge in ridges]).argmin())]


def solve_ridge(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Solve ``(gram + ridge I) weights = cross`` for a Gram matrix, in float64.

    By Cholesky factorisation. Where the ridge is lost beside large entries and rounding has left the matrix singular or
    indefinite, the directions that rounding alone has made are left out: what remains is ``factor^T factor`` with a
    narrow factor, in whose range ``cross`` lies.

    Parameters
    ----------
    gram : Tensor
        ``[M, M]``, symmetric, positive semi-definite up to rounding.
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
    factor = _cholesky(gram, ridge)
    if factor is not None and (ridge > least or float(factor.diagonal().min()) ** 2 > least):
        return torch.cholesky_solve(cross, factor)
    del factor  # as large as the matrix
    narrow, pivots = pivoted_cholesky(gram, least)
    coefficients = torch.linalg.solve_triangular(narrow[:, pivots].T, cross[pivots], upper=False)
    small = narrow @ narrow.T
    small.diagonal().add_(ridge)
    return narrow.T @ torch.cholesky_solve(coefficients, torch.linalg.cholesky(small))


def rounding(gram: Tensor) -> float:
    """Return what rounding alone may add to an eigenvalue: M times the dtype's epsilon times the Frobenius norm."""
    return len(gram) * torch.finfo(gram.dtype).eps * float(torch.linalg.vector_norm(gram))


def pivoted_cholesky(gram: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Factor a singular Gram matrix, as narrowly as its rank: ``gram = factor^T factor`` up to the tolerance.

    Each step takes the row with the largest diagonal entry of what is left, until none is above the tolerance. Its
    cost grows with ``rank^2 M``, far below an eigendecomposition's where few rows have been learned.

    Parameters
    ----------
    gram : Tensor
        ``[M, M]``, symmetric.
    tolerance : float

    Returns
    -------
    factor : Tensor
        ``[rank, M]``.
    pivots : Tensor
        int64, ``[rank]``; ``factor[:, pivots]`` is upper triangular.
    """
    left = gram.diagonal().clone()
    taken = torch.zeros_like(left, dtype=torch.bool)
    factor = gram.new_empty(min(_FACTOR_ROWS, len(gram)), len(gram))
    pivots: list[int] = []
    while len(pivots) < len(gram):
        rank, pivot = len(pivots), int(left.argmax())
        if not float(left[pivot]) > tolerance:
            break
        if rank == len(factor):
            memory.require(
                2 * factor.nbytes, gram.device, f"a factor of rank above {rank}", "lower --method-options width=N"
            )
            factor = torch.cat([factor, torch.empty_like(factor)])
        row = torch.addmv(gram[pivot], factor[:rank].T, factor[:rank, pivot], alpha=-1)
        factor[rank] = (row / left[pivot].sqrt()).masked_fill_(taken, 0)
        left -= factor[rank].square()
        taken[pivot] = True
        left.masked_fill_(taken, 0)
        pivots.append(pivot)
    return factor[: len(pivots)], torch.tensor(pivots, dtype=torch.int64, device=gram.device)


def _cholesky(gram: Tensor, shift: float) -> Tensor | None:
    """Return the lower factor of ``gram + shift I``, or None where that is not positive definite."""
    factor = gram.clone().T  # the same matrix, in the order of LAPACK's columns: it is factored where it lies
    factor.diagonal().add_(shift)
    info = torch.empty((), dtype=torch.int32, device=gram.device)
    torch.linalg.cholesky_ex(factor, out=(factor, info))
    return None if int(info) else factor
