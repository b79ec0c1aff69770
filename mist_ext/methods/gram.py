"""Gram matrices in halves: one triangle is computed, and a Cholesky factor takes no second matrix.

A Gram matrix of RanPAC's published width (10,000) is 800 MB in float64. `torch.linalg.cholesky_ex` would make a second
one and `torch.addmm` compute each entry twice, so both are done here block by block, with torch's matrix products. All
is for both CPU and CUDA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mist_ext.system import memory

_STEPS, _FAST, _ENOUGH = 6, 1e-2, 1e-11  # of a refinement: most steps, each one's gain, and the last one's size
_BLOCK = 512  # rows: products of this size run at full speed, and 2.5 % of the work at M = 10,000 is done twice


def add_gram_(gram: Tensor, rows: Tensor) -> None:
    """``gram += rows^T rows``.

    Parameters
    ----------
    gram : Tensor
        ``[M, M]``, symmetric; it stays so bit for bit.
    rows : Tensor
        ``[n, M]``, of the same dtype.
    """
    for start, stop in _blocks(len(gram)):
        gram[start:stop, :stop].addmm_(rows[:, start:stop].T, rows[:, :stop])
    _mirror_lower_(gram)


def rounding(gram: Tensor) -> float:
    """What rounding alone may add to an eigenvalue: M times the dtype's epsilon times the Frobenius norm."""
    return len(gram) * torch.finfo(gram.dtype).eps * float(torch.linalg.vector_norm(gram))


class Factored:
    """The Cholesky factor of ``matrix + shift I``, in the lower triangle of the symmetric matrix itself.

    Where the matrix is still needed, use it as a context: on leaving it, the matrix has its old bits again, copied from
    the upper triangle.

    Parameters
    ----------
    matrix : Tensor
        ``[M, M]``, both triangles given.
    shift : float

    Attributes
    ----------
    complete : bool
        Whether the factorisation succeeded: whether the shifted matrix is positive definite beside its rounding.
    """

    def __init__(self, matrix: Tensor, shift: float) -> None:
        self.matrix = matrix
        self._diagonal = matrix.diagonal().clone()
        matrix.diagonal().add_(shift)
        self.complete = _cholesky_lower_(matrix)

    def __enter__(self) -> Factored:
        return self

    def __exit__(self, *_: object) -> None:
        self.matrix.diagonal().copy_(self._diagonal)
        _mirror_upper_(self.matrix)

    def least_pivot(self) -> float:
        """The square of the factor's smallest diagonal entry, which no eigenvalue's minimum exceeds."""
        return float(self.matrix.diagonal().min()) ** 2

    def solve(self, right: Tensor) -> Tensor:
        """``(matrix + shift I)^-1 right``, for ``right`` [M, columns]."""
        half = torch.linalg.solve_triangular(self.matrix, right, upper=False)
        return torch.linalg.solve_triangular(self.matrix.T, half, upper=True)

    def solve_nearby(self, matrix: Tensor, shift: float, right: Tensor) -> Tensor | None:
        """``(matrix + shift I)^-1 right`` by refinement with this factor, of the same matrix and another shift.

        Each step multiplies the error by at most the difference of the shifts over the least eigenvalue of what was
        factored: where that is small, a few steps cost far less than a factorisation.

        Returns
        -------
        Tensor or None
            None where the steps do not get small soon: factor anew then.
        """
        solved = self.solve(right)
        for number in range(_STEPS):
            step = self.solve(right - shift * solved - matrix @ solved)
            solved += step
            size = float(step.norm() / solved.norm())
            if size <= _ENOUGH:
                return solved
            if not size <= _FAST ** (number + 1):
                return None
        return None


def pivoted_cholesky(gram: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """A factor of a singular Gram matrix, as narrow as its rank: ``gram = factor^T factor`` up to the tolerance.

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
    factor = gram.new_empty(min(_BLOCK, len(gram)), len(gram))
    pivots: list[int] = []
    while len(pivots) < len(gram):
        rank, pivot = len(pivots), int(left.argmax())
        if not float(left[pivot]) > tolerance:
            break
        if rank == len(factor):
            memory.require(2 * factor.nbytes, gram.device, f"a factor of rank above {rank}", "lower ranpac's width")
            factor = torch.cat([factor, torch.empty_like(factor)])
        row = torch.addmv(gram[pivot], factor[:rank].T, factor[:rank, pivot], alpha=-1)
        factor[rank] = (row / left[pivot].sqrt()).masked_fill_(taken, 0)
        left -= factor[rank].square()
        taken[pivot] = True
        left.masked_fill_(taken, 0)
        pivots.append(pivot)
    return factor[: len(pivots)], torch.tensor(pivots, dtype=torch.int64, device=gram.device)


def _blocks(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def _cholesky_lower_(matrix: Tensor) -> bool:
    """Put the Cholesky factor into the lower triangle, and leave what is above the diagonal as it is."""
    for start, stop in _blocks(len(matrix)):
        done = matrix[start:stop, :start]
        corner = matrix[start:stop, start:stop]
        factor, info = torch.linalg.cholesky_ex(torch.addmm(corner, done, done.T, alpha=-1))
        if int(info):
            return False
        corner.copy_(factor + corner.triu(1))
        below = matrix[stop:, start:stop]
        below.addmm_(matrix[stop:, :start], done.T, alpha=-1)
        below.copy_(torch.linalg.solve_triangular(factor.T, below, upper=True, left=False))
    return True


def _mirror_lower_(matrix: Tensor) -> None:
    for start, stop in _blocks(len(matrix)):
        corner = matrix[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        matrix[:start, start:stop] = matrix[start:stop, :start].T


def _mirror_upper_(matrix: Tensor) -> None:
    _mirror_lower_(matrix.T)
