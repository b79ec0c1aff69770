"""RanPAC's ridge regressions against numpy: one dense solve per ridge, and systems that rounding has made singular."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ridge_tasks import one_hot, published_errors, task

from mist_ext.methods.ranpac import RIDGES
from mist_ext.methods.ridge import best_ridge, pivoted_cholesky, rounding, solve_ridge


# Fewer rows than random features and more: the two forms of the decomposition. Noise moves the best ridge.
@pytest.mark.parametrize("rows", [40, 80, 400])
@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
def test_the_ridge_is_the_one_that_seventeen_solves_find(rows: int, noise: float) -> None:
    features, labels = task(rows, range(5), noise, seed=rows)
    projection = torch.randn(8, 60, generator=torch.Generator().manual_seed(1))
    hidden = torch.relu(features.double() @ projection.double())
    targets = torch.from_numpy(one_hot(labels, 5))
    errors = published_errors(hidden.numpy(), targets.numpy(), int(rows * 0.8))
    assert len(RIDGES) == len(errors) == 17
    assert best_ridge(hidden, targets, int(rows * 0.8), RIDGES) == RIDGES[int(np.argmin(errors))]


def test_ties_between_ridges_go_to_the_smallest() -> None:
    # Held-out rows without any activation are predicted as zero by every ridge.
    hidden = torch.cat([torch.rand(8, 5, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.float64)])
    assert best_ridge(hidden, torch.rand(10, 3, dtype=torch.float64), 8, (0.5, 1.0, 2.0)) == 0.5


def test_repeated_rows_do_not_blow_up_the_smallest_ridge() -> None:
    """A Gram matrix of rank 3 with entries of 1e10: beside them a ridge of 1e-8 is lost in rounding."""
    rows = 1e5 * torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = rows.repeat(20, 1)
    targets = torch.eye(3, dtype=torch.float64).repeat(20, 1)
    assert best_ridge(hidden, targets, 48, (1e-8, 1e12)) == 1e-8
    gram = hidden.T @ hidden
    # What makes the fallback necessary; if this fails, the test does not test it.
    assert int(torch.linalg.cholesky_ex(gram + 1e-8 * torch.eye(40)).info) != 0
    weights = solve_ridge(gram, hidden.T @ targets, 1e-8)
    smallest = np.linalg.lstsq(hidden.numpy(), targets.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weights.numpy(), smallest, atol=1e-6 * np.abs(smallest).max())


def test_an_indefinite_gram_matrix_leaves_the_well_conditioned_part_exact() -> None:
    gram = torch.diag(torch.tensor([1e12, 4.0, 1.0, -1e-7], dtype=torch.float64))
    weights = solve_ridge(gram, torch.tensor([[1e12], [8.0], [3.0], [1e-9]], dtype=torch.float64), 1e-8)
    np.testing.assert_allclose(weights.flatten().numpy(), [1.0, 2.0, 3.0, 0.0], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("size", [40, 1100])
def test_a_regular_system_is_solved_and_its_matrix_stays_as_it_is(size: int) -> None:
    rows = torch.randn(2 * size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram, cross = rows.T @ rows, rows.T[:, :3]
    before = gram.clone()
    solved = solve_ridge(gram, cross, 2.5)
    assert torch.equal(gram, before)
    expected = np.linalg.solve(gram.numpy() + 2.5 * np.eye(size), cross.numpy())
    np.testing.assert_allclose(solved.numpy(), expected, rtol=1e-8, atol=1e-12)


def test_rows_that_are_not_finite_have_no_best_ridge() -> None:
    hidden = torch.full((5, 3), torch.inf, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError, match="a Gram matrix plus"):
        best_ridge(hidden, torch.ones(5, 2, dtype=torch.float64), 4, (1.0,))


@pytest.mark.parametrize(("rows", "size"), [(7, 40), (600, 700)])
def test_a_pivoted_factor_is_as_narrow_as_the_rank(rows: int, size: int) -> None:
    drawn = torch.randn(rows, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = drawn.T @ drawn
    factor, pivots = pivoted_cholesky(gram, 1e-7)
    assert factor.shape == (rows, size)
    assert torch.allclose(factor.T @ factor, gram, atol=1e-6)
    assert torch.equal(factor[:, pivots], factor[:, pivots].triu())


def test_the_fallback_solves_a_singular_system_as_the_exact_one_where_the_ridge_counts() -> None:
    """Few rows of many features: a ridge that is lost in G still has its exact effect on the rows themselves."""
    rows = torch.randn(20, 300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gram = rows.T @ rows
    cross = rows.T @ torch.eye(20, dtype=torch.float64)
    lost = 1e-12
    assert lost < rounding(gram)
    kernel = rows.numpy() @ rows.numpy().T
    expected = rows.numpy().T @ np.linalg.inv(kernel + lost * np.eye(20))
    np.testing.assert_allclose(solve_ridge(gram, cross, lost).numpy(), expected, rtol=1e-7, atol=1e-11)


def test_ridges_below_the_rounding_of_large_entries_share_the_least_and_larger_ones_are_exact() -> None:
    """Entries as of a ViT-B's task: 1e-8 is below the rounding of eigenvalues near 1e10, 1e3 and more are not."""
    features, labels = task(200, range(5), 4.0, seed=3)
    projection = torch.randn(8, 400, generator=torch.Generator().manual_seed(1))
    hidden = torch.relu(1e3 * features.double() @ projection.double())
    targets = torch.from_numpy(one_hot(labels, 5))
    kernel = hidden[:160] @ hidden[:160].T
    assert 1e-8 < rounding(kernel) < 1e3
    ridges = [10.0**exponent for exponent in range(3, 13)]
    errors = []
    for value in ridges:  # the dual form, which numpy solves well
        weights = np.linalg.solve(kernel.numpy() + value * np.eye(160), targets[:160].numpy())
        predicted = hidden[160:].numpy() @ (hidden[:160].numpy().T @ weights)
        errors.append(float(((predicted - targets[160:].numpy()) ** 2).mean()))
    best = ridges[int(np.argmin(errors))]
    assert ridges[0] < best < ridges[-1]
    assert best_ridge(hidden, targets, 160, ridges) == best_ridge(hidden, targets, 160, (1e-8, 1e-7, *ridges)) == best
    assert best_ridge(hidden, targets, 160, (1e-8, 1e-7)) == 1e-8
