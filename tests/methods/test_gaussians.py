"""FeCAM and SLCA's statistics against numpy, and classes that have no covariance."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mist_ext import backbones
from mist_ext.methods import create


def blobs(labels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features around one centre per class."""
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(20, 6, 6))
    centres = 3 * np.random.default_rng(98).normal(size=(20, 6))
    rows = [centres[label] + draw.normal(size=6) @ mixing[label] for label in labels]
    return torch.from_numpy(np.stack(rows)), torch.tensor(labels)


def mahalanobis(f: np.ndarray, y: np.ndarray, queries: np.ndarray, gamma1: float, gamma2: float) -> np.ndarray:
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = np.zeros((len(queries), int(y.max()) + 1))
    for label in range(scores.shape[1]):
        rows = f[y == label]
        covariance = np.cov(rows.T)
        off = ~np.eye(6, dtype=bool)
        covariance = (
            covariance + gamma1 * np.diag(covariance).mean() * np.eye(6) + gamma2 * covariance[off].mean() * off
        )
        deviations = np.sqrt(np.diag(covariance))
        inverse = np.linalg.inv(covariance / np.outer(deviations, deviations))
        for i, query in enumerate(queries):
            scores[i, label] = -(query - rows.mean(axis=0)) @ inverse @ (query - rows.mean(axis=0))
    return scores


@pytest.mark.parametrize("gammas", [(1.0, 0.0), (1.0, 1.0), (100.0, 50.0)])
def test_fecam_is_the_shrunk_and_normalised_mahalanobis_distance(gammas: tuple[float, float]) -> None:
    first, second = blobs([0, 1, 2] * 9, 1), blobs([3, 4] * 4, 2)  # 4 rows, fewer than the dimensions
    queries, _ = blobs(list(range(5)) * 6, 3)
    method = create("fecam", gamma1=gammas[0], gamma2=gammas[1])
    method.learn(*first)
    method.learn(*second)
    f, y = torch.cat([first[0], second[0]]).numpy(), torch.cat([first[1], second[1]]).numpy()
    expected = mahalanobis(f, y, queries.numpy(), *gammas)
    assert np.abs(method.scores(queries).numpy() - expected).max() < 1e-5
    assert np.unique(expected.argmax(axis=1)).size > 3


def test_fecam_learns_a_class_in_parts_as_at_once() -> None:
    features, labels = blobs([0, 1] * 10)
    parts, whole = create("fecam"), create("fecam")
    parts.learn(features[:8], labels[:8])
    parts.learn(features[8:], labels[8:])
    whole.learn(features, labels)
    assert torch.allclose(parts.scores(features), whole.scores(features), rtol=0, atol=1e-9)


@pytest.mark.parametrize("gamma1", [0.0, -1.0])
def test_a_shrinkage_that_leaves_a_singular_matrix_is_refused(gamma1: float) -> None:
    with pytest.raises(ValueError, match="gamma1"):
        create("fecam", gamma1=gamma1)


def slca(**options: Any) -> Any:
    method: Any = create("slca", epochs=1, **options)
    method.attach(backbones.create("vit_nano"))
    method._extend(range(0, 3))
    return method


def test_slca_draws_from_the_gaussian_of_every_class() -> None:
    method = slca(draws_per_class=20000)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(90, 128, generator=generator) * torch.rand(128, generator=generator) + 2
    labels = torch.arange(90) % 3
    method.learn(features, labels)
    f = features.numpy().astype(np.float64)
    for label in range(3):
        rows = f[labels.numpy() == label]
        assert np.abs(method.prototypes[label].numpy() - rows.mean(axis=0)).max() < 1e-5
        assert np.abs(method.covariances([label])[0].numpy() - np.cov(rows.T)).max() < 1e-5
    samples, drawn = method.sampled()
    rows = samples[drawn == 1].numpy().astype(np.float64)
    assert np.abs(rows.mean(axis=0) - f[labels.numpy() == 1].mean(axis=0)).max() < 0.05  # weight 1 in a single task
    assert np.abs(np.cov(rows.T) - np.cov(f[labels.numpy() == 1].T)).max() < 0.05


def test_alignment_trains_the_classifier_of_all_tasks_and_nothing_else() -> None:
    method = slca(draws_per_class=16)
    method.learn(torch.randn(30, 128), torch.arange(30) % 3)
    before = {name: value.clone() for name, value in method.network.state_dict().items()}
    method._extend(range(3, 5))
    before |= {name: value.clone() for name, value in method.network.state_dict().items() if "tasks.1" in name}
    method.learn(torch.randn(20, 128) + 1, torch.arange(20) % 2 + 3)
    for name, value in method.network.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("heads.")), name


def test_classes_with_one_image_take_the_mean_covariance_with_a_warning() -> None:
    features, labels = blobs([0] * 9 + [1] * 9 + [2])
    method: Any = create("fecam")
    with pytest.warns(UserWarning, match="class 2 in the order of the tasks, from 0, has a single image"):
        method.learn(features, labels)
    assert torch.isfinite(method.scores(features)).all()
    with pytest.warns(UserWarning, match="class 2"):
        covariances = method.covariances([2, 0, 1])
    assert torch.allclose(covariances[0], covariances[1:].mean(dim=0))


def test_a_class_with_one_image_is_named_once() -> None:
    features, labels = blobs([0] * 9 + [1] * 9 + [2])
    method: Any = create("fecam")
    with pytest.warns(UserWarning, match="class 2 in the order of the tasks, from 0, has a single image"):
        method.learn(features, labels)
    others, others_labels = blobs([3] * 9 + [4] * 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.learn(others, others_labels)
    assert torch.isfinite(method.scores(others)).all()


@pytest.mark.parametrize("name", ["fecam", "slca"])
def test_the_memory_of_second_moments_is_asked_for(name: str) -> None:
    method: Any = create("fecam") if name == "fecam" else slca()
    features, labels = torch.randn(30, 128), torch.arange(30) % 3
    method.learn(features, labels)
    kept = sum(value.nbytes for value in method.state_dict().values() if isinstance(value, Tensor) and value.ndim == 3)
    made = method.covariances([0, 1, 2]).nbytes
    assert kept + made <= method.memory(30, 128, 3) <= 4 * made  # a task's old moments are there beside its new ones


def test_a_task_of_single_images_is_learned() -> None:
    method = create("fecam")
    features, labels = blobs([0, 1, 2])
    with pytest.warns(UserWarning, match="class 0, 1, 2"):
        method.learn(features, labels)
    assert method.predict(features).tolist() == [0, 1, 2]


def test_slca_aligns_with_single_images() -> None:
    method = slca(draws_per_class=8)
    method.learn(torch.randn(7, 128), torch.tensor([0, 0, 0, 2, 2, 2, 1]))
    method._extend(range(3, 4))
    with pytest.warns(UserWarning, match="class 1, 3 in the order of the tasks, from 0, has a single image"):
        method.learn(torch.randn(1, 128), torch.tensor([3]))
    scores = method.scores(torch.randn(5, 128))
    assert torch.isfinite(scores).all()
