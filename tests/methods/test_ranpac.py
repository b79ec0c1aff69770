"""RanPAC against the published algorithm, written out in numpy float64 with one dense solve per ridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ridge_tasks import one_hot, published_errors, task

from mist_ext.methods.ranpac import RIDGES, RanPAC
from mist_ext.system import memory


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


def test_more_memory_than_there_is_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = task(20, range(2), 1.0, 0)
    method = RanPAC(width=10_000)
    method_needs = method.memory(20, 8, 2)
    assert 1.6e9 < method_needs < 1.7e9  # G and its factor
    monkeypatch.setattr(memory, "available", lambda device: 700_000_000)
    message = (
        r"RanPAC with 10000 random features and a task of 20 rows needs 1\.6 GB of memory, but 0\.7 GB are available "
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
