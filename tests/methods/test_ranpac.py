"""RanPAC against the published algorithm, written out in numpy float64 with one dense solve per ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mist_ext.methods import ridge as regression
from mist_ext.methods.gram import Factored, add_gram_, pivoted_cholesky, rounding
from mist_ext.methods.ranpac import RIDGES, RanPAC
from mist_ext.methods.ridge import best_ridge, solve_ridge
from mist_ext.system import memory

Array = NDArray[np.float64]


def task(rows: int, classes: range, noise: float, seed: int, width: int = 8) -> tuple[Tensor, Tensor]:
    centres = torch.randn(30, width, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes.start, classes.stop, (rows,), generator=generator)
    return centres[labels] + noise * torch.randn(rows, width, generator=generator), labels


def one_hot(labels: Tensor, classes: int) -> Array:
    return np.eye(classes)[labels.numpy()]


def published_errors(hidden: Array, targets: Array, fitted: int) -> list[float]:
    gram, cross = hidden[:fitted].T @ hidden[:fitted], hidden[:fitted].T @ targets[:fitted]
    errors = []
    for ridge in 10.0 ** np.arange(-8, 9):
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), cross)
        errors.append(float(((hidden[fitted:] @ weights - targets[fitted:]) ** 2).mean()))
    return errors


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


def test_noise_moves_the_ridge_so_that_the_comparison_means_something() -> None:
    chosen = set()
    for noise in (0.1, 1.0, 4.0):
        method = RanPAC(width=60)
        method.learn(*task(400, range(5), noise, seed=400))
        chosen.add(method.ridge)
    assert len(chosen) > 1


@pytest.mark.parametrize("rows", [60, 300])
def test_weights_after_several_tasks_are_the_closed_form_of_all_rows_with_the_last_ridge(rows: int) -> None:
    tasks = [task(rows, range(3 * t, 3 * t + 3), 1.0, seed=t) for t in range(3)]
    method = RanPAC(width=90, seed=5)
    for features, labels in tasks:
        method.learn(features, labels)
    features, labels = (torch.cat(parts) for parts in zip(*tasks, strict=True))
    hidden = np.maximum(features.numpy().astype(np.float64) @ method.projection.numpy().astype(np.float64), 0)
    gram = hidden.T @ hidden + method.ridge * np.eye(90)
    expected = np.linalg.solve(gram, hidden.T @ one_hot(labels, 9))
    np.testing.assert_allclose(method.weights.numpy(), expected, rtol=1e-6, atol=1e-9)

    queries, _ = task(200, range(9), 2.0, seed=77)
    scores = np.maximum(queries.numpy().astype(np.float64) @ method.projection.numpy().astype(np.float64), 0)
    assert method.predict(queries).tolist() == (scores @ expected).argmax(axis=1).tolist()


def test_the_ridge_of_a_task_comes_from_its_own_rows_in_the_seeded_order() -> None:
    # Few and noisy rows, sorted by class: another order would give other ridges.
    tasks = [task(18, range(2 * t, 2 * t + 3), 4.0, seed=t) for t in range(8)]
    tasks = [(features[labels.argsort()], labels.sort().values) for features, labels in tasks]
    method = RanPAC(width=90, seed=11)
    for number, (features, labels) in enumerate(tasks):
        method.learn(features, labels)
        mixed = np.random.SeedSequence([11, 1, number]).generate_state(1, np.uint64)
        order = torch.randperm(18, generator=torch.Generator().manual_seed(int(mixed[0] >> 1)))
        hidden = np.maximum(features.double().numpy() @ method.projection.double().numpy(), 0)
        # Targets span all classes, as in the published code, which knows them from the start.
        errors = published_errors(hidden[order], one_hot(labels, 17)[order], 14)
        assert method.ridge == RIDGES[int(np.argmin(errors))]


def test_tasks_add_up_whatever_their_order_and_classes_may_come_again() -> None:
    one, two, again = task(80, range(3), 1.0, 1), task(80, range(3, 5), 1.0, 2), task(60, range(1, 4), 1.0, 3)
    forward, backward = RanPAC(width=50), RanPAC(width=50)
    for part in (one, two, again):
        forward.learn(*part)
    for part in (again, two, one):
        backward.learn(*part)
    assert torch.allclose(forward.gram, backward.gram)
    assert torch.allclose(forward.cross, backward.cross)
    assert torch.equal(forward.counts, backward.counts)
    assert int(forward.counts.sum()) == 220


def test_the_projection_is_standard_normal_and_drawn_once_from_its_own_generator() -> None:
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    method = RanPAC(width=100, seed=1)
    method.learn(*task(5, range(2), 1.0, 0, width=200))
    assert torch.equal(torch.rand(3), untouched)
    first = method.projection.clone()
    assert first.mean().abs() < 0.02
    assert (first.std() - 1).abs() < 0.02
    method.learn(*task(5, range(2, 4), 1.0, 0, width=200))
    assert torch.equal(method.projection, first)
    other = RanPAC(width=100, seed=2)
    other.learn(*task(5, range(2), 1.0, 0, width=200))
    assert not torch.equal(other.projection, first)


def test_a_single_row_leaves_the_ridge_as_it_is() -> None:
    method = RanPAC(width=40)
    method.learn(*task(1, range(1), 1.0, 0))
    assert method.ridge == 1.0
    method.learn(*task(300, range(1, 4), 4.0, 1))
    chosen = method.ridge
    assert chosen != 1.0
    method.learn(*task(1, range(4, 5), 1.0, 2))
    assert method.ridge == chosen
    assert len(method.counts) == 5


def test_features_that_activate_nothing_are_learned_without_an_error() -> None:
    method = RanPAC(width=10, ridges=(2.0, 0.5, 1.0))
    method.learn(torch.zeros(20, 4), torch.arange(20) % 2)
    assert method.ridge == 0.5  # all errors are equal: the smallest
    assert torch.isfinite(method.weights).all()
    assert set(method.predict(torch.randn(9, 4)).tolist()) <= {0, 1}


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"ridges": ()}, "ridges"),
        ({"ridges": (1.0, 0.0)}, "ridges"),
        ({"fit_fraction": 1.0}, r"fit_fraction=1\.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RanPAC(**options)  # type: ignore[arg-type]


def test_a_state_of_another_width_or_seed_is_refused() -> None:
    method = RanPAC(width=10, seed=1)
    method.learn(*task(20, range(2), 1.0, 0))
    with pytest.raises(ValueError, match="width=10, but the method was created with width=11"):
        RanPAC(width=11, seed=1).load_state_dict(method.state_dict())
    with pytest.raises(ValueError, match="create it with seed=1"):
        RanPAC(width=10, seed=2).load_state_dict(method.state_dict())


def mirrored(rows: int, size: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gram = torch.zeros(size, size, dtype=torch.float64)
    add_gram_(gram, drawn)
    return gram


# One block, and several with a short last one.
@pytest.mark.parametrize("size", [40, 1100])
def test_a_gram_matrix_adds_up_and_is_symmetric_to_the_bit(size: int) -> None:
    rows = torch.randn(2, 30, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for part in rows:
        add_gram_(gram, part)
    expected = sum(part.numpy().T @ part.numpy() for part in rows)
    np.testing.assert_allclose(gram.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(gram, gram.T)


@pytest.mark.parametrize("size", [40, 1100])
def test_a_matrix_lends_its_memory_to_the_factor_and_gets_it_back(size: int) -> None:
    gram = mirrored(2 * size, size)
    before, right = gram.clone(), torch.randn(size, 3, dtype=torch.float64)
    with Factored(gram, 2.5) as factored:
        assert factored.complete
        solved = factored.solve(right)
        least = float(torch.linalg.cholesky(before + 2.5 * torch.eye(size, dtype=torch.float64)).diagonal().min() ** 2)
        assert factored.least_pivot() == pytest.approx(least, rel=1e-9)
    assert torch.equal(gram, before)
    expected = np.linalg.solve(before.numpy() + 2.5 * np.eye(size), right.numpy())
    np.testing.assert_allclose(solved.numpy(), expected, rtol=1e-8, atol=1e-12)


def test_a_matrix_that_cannot_be_factored_is_whole_afterwards() -> None:
    gram = mirrored(2000, 1100)
    gram[700, 700] = -1
    before = gram.clone()
    with Factored(gram, 0.5) as factored:
        assert not factored.complete
    assert torch.equal(gram, before)
    gram[700, 700] = -1e9
    with pytest.raises(RuntimeError, match="in the midst"), Factored(gram, 0.5):
        raise RuntimeError("in the midst")
    assert gram[700, 700] == -1e9


@pytest.mark.parametrize(("rows", "size"), [(7, 40), (600, 700)])
def test_a_pivoted_factor_is_as_narrow_as_the_rank(rows: int, size: int) -> None:
    gram = mirrored(rows, size)
    factor, pivots = pivoted_cholesky(gram, 1e-7)
    assert factor.shape == (rows, size)
    assert torch.allclose(factor.T @ factor, gram, atol=1e-6)
    assert torch.equal(factor[:, pivots], factor[:, pivots].triu())


def test_the_fallback_solves_a_singular_system_as_the_exact_one_where_the_ridge_counts() -> None:
    """Few rows of many features: a ridge that is lost in G still has its exact effect on the rows themselves."""
    rows = torch.randn(20, 300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gram = torch.zeros(300, 300, dtype=torch.float64)
    add_gram_(gram, rows)
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


def test_more_memory_than_there_is_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = task(20, range(2), 1.0, 0)
    method = RanPAC(width=10_000)
    method_needs = method.memory(20, 8, 2)
    assert 0.8e9 < method_needs < 0.9e9
    monkeypatch.setattr(memory, "available", lambda device: 700_000_000)
    message = (
        r"RanPAC with 10000 random features and a task of 20 rows needs 0\.8 GB of memory, but 0\.7 GB are available "
        r"on cpu; lower --method-options width=N"
    )
    with pytest.raises(memory.NotEnoughMemory, match=message):
        method.learn(features, labels)
    assert not len(method.counts)
    assert not method.gram.numel()


def test_what_is_already_taken_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    method = RanPAC(width=300)
    method.learn(*task(20, range(2), 1.0, 0))
    monkeypatch.setattr(memory, "available", lambda device: method.memory(20, 8, 4) - 8 * 300 * 300)
    method.learn(*task(20, range(2, 4), 1.0, 1))
    assert len(method.counts) == 4


def test_one_factorisation_serves_shifts_that_are_small_beside_the_eigenvalues() -> None:
    gram, right = mirrored(400, 100), torch.randn(100, 3, dtype=torch.float64)
    factored = Factored(gram.clone(), 1e-6)
    for shift in (1e-5, 1e-3, 1e-1):
        solved = factored.solve_nearby(gram, shift, right)
        assert solved is not None
        expected = np.linalg.solve(gram.numpy() + shift * np.eye(100), right.numpy())
        np.testing.assert_allclose(solved.numpy(), expected, rtol=1e-10, atol=1e-14)
    assert factored.solve_nearby(gram, 100.0, right) is None
    assert factored.solve_nearby(gram, 1e8, right) is None


def test_fewer_factorisations_than_ridges_find_the_same_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = task(400, range(5), 1.0, seed=2)
    projection = torch.randn(8, 600, generator=torch.Generator().manual_seed(1))
    hidden = torch.relu(features.double() @ projection.double())
    targets = torch.from_numpy(one_hot(labels, 5))
    shifts: list[float] = []

    class Counted(Factored):
        def __init__(self, matrix: Tensor, shift: float) -> None:
            shifts.append(shift)
            super().__init__(matrix, shift)

    monkeypatch.setattr(regression, "Factored", Counted)
    chosen = best_ridge(hidden, targets, 320, RIDGES)
    assert 0 < len(shifts) < len(RIDGES)
    shared = len(shifts)
    monkeypatch.setattr(Counted, "solve_nearby", lambda *_: None)
    assert best_ridge(hidden, targets, 320, RIDGES) == chosen
    assert len(shifts) == shared + len(RIDGES)
