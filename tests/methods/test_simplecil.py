"""SimpleCIL against loops over classes in numpy, and what every method has in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mist_ext.methods import METHODS, create, named
from mist_ext.methods.method import Method
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.methods.trained import TrainedMethod

FROM_FEATURES = [name for name in METHODS if not issubclass(named(name), TrainedMethod)]


def blobs(labels: list[int], seed: int = 0, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Features around one random centre per class; the centres depend on nothing but the class."""
    centres = torch.randn(20, 6, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(seed))
    targets = torch.tensor(labels)
    return centres[targets] + spread * noise, targets


def nearest_prototypes(features: Tensor, labels: Tensor, queries: Tensor) -> list[int]:
    known = sorted(set(labels.tolist()))
    f, y = features.numpy().astype(np.float64), labels.numpy()
    answers = []
    for query in queries.numpy().astype(np.float64):
        best = []
        for label in known:
            prototype = f[y == label].mean(axis=0)
            best.append(query @ prototype / np.linalg.norm(query) / np.linalg.norm(prototype))
        answers.append(known[int(np.argmax(best))])
    return answers


def test_predictions_are_those_of_the_most_similar_class_mean_over_all_tasks() -> None:
    first, second = blobs([0, 1, 2] * 9, seed=1), blobs([3, 4] * 8, seed=2)
    queries, _ = blobs(list(range(5)) * 20, seed=3, spread=1.5)
    method = SimpleCIL()
    method.learn(*first)
    assert method.predict(queries).tolist() == nearest_prototypes(*first, queries)
    method.learn(*second)
    both = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    assert method.predict(queries).tolist() == nearest_prototypes(*both, queries)


def test_similarity_is_the_cosine_not_the_distance() -> None:
    method = SimpleCIL()
    method.learn(torch.tensor([[100.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 1]))
    # Closest to class 1 by distance and by inner product with unit length, but in the direction of class 0.
    assert method.predict(torch.tensor([[0.5, 0.2]])).tolist() == [0]
    # By the plain inner product the long prototype of class 0 would win.
    assert method.predict(torch.tensor([[0.5, 0.6]])).tolist() == [1]


def test_a_class_that_comes_again_gets_the_mean_of_all_its_rows() -> None:
    features, labels = blobs([0, 0, 0, 0, 0, 1])
    method = SimpleCIL()
    method.learn(features[:2], labels[:2])
    method.learn(features[2:], labels[2:])
    assert torch.allclose(method.prototypes[0], features[:5].double().mean(dim=0))
    assert method.counts.tolist() == [5, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_reduced_precision_features_are_summed_in_float64(dtype: torch.dtype) -> None:
    # In fp16 and bf16 a sum of 5000 ones would stop growing long before.
    method = SimpleCIL()
    method.learn(torch.ones(5000, 3, dtype=dtype), torch.zeros(5000, dtype=torch.int64))
    assert method.sums.tolist() == [[5000.0] * 3]


def small(name: str) -> Method:
    return create(name, **({"width": 60} if name == "ranpac" else {}))


@pytest.mark.parametrize("name", FROM_FEATURES)
class TestEveryMethodThatLearnsFromFeaturesAlone:
    def test_only_classes_that_were_seen_are_predicted(self, name: str) -> None:
        method = small(name)
        method.learn(*blobs([2, 5] * 10))
        assert set(method.predict(torch.randn(300, 6)).tolist()) == {2, 5}

    def test_a_single_class_can_be_learned(self, name: str) -> None:
        method = small(name)
        method.learn(*blobs([0] * 7))
        predicted = method.predict(torch.randn(5, 6))
        assert predicted.tolist() == [0] * 5
        assert predicted.dtype == torch.int64

    def test_state_is_a_snapshot_that_goes_on_as_the_method_itself(self, name: str) -> None:
        queries, _ = blobs(list(range(6)) * 30, spread=2.0)
        method, other = small(name), small(name)
        method.learn(*blobs([0, 1, 2] * 20, seed=1))
        state, untouched = method.state_dict(), method.state_dict()
        assert all(isinstance(value, Tensor | int | float) for value in state.values())
        before = method.predict(queries)
        method.learn(*blobs([3, 4, 5] * 20, seed=2))
        other.load_state_dict(state)
        assert torch.equal(other.predict(queries), before)
        other.learn(*blobs([3, 4, 5] * 20, seed=2))
        for entry, value in method.state_dict().items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.state_dict()[entry])), entry
        # What `other` learned has not reached the dictionary that it was loaded from.
        for entry, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(untouched[entry])), entry

    def test_prediction_in_parts_is_prediction_of_each_row(self, name: str) -> None:
        method = small(name)
        method.learn(*blobs([0, 1, 2] * 20))
        queries, _ = blobs([0, 1, 2] * 1700, spread=1.5)
        rows = [0, 4095, 4096, 5099]
        singles = [int(method.predict(queries[row : row + 1])) for row in rows]
        assert method.predict(queries)[rows].tolist() == singles
        assert method.predict(queries[:0]).tolist() == []

    def test_prediction_before_learning_is_refused(self, name: str) -> None:
        with pytest.raises(RuntimeError, match="predict before learn"):
            small(name).predict(torch.zeros(1, 6))

    @pytest.mark.parametrize(
        ("features", "labels", "message"),
        [
            (
                torch.zeros(3, 2, 2),
                torch.zeros(3, dtype=torch.int64),
                r"\[3, 2, 2\], expected floating point",
            ),
            (
                torch.zeros(3, 2, dtype=torch.int64),
                torch.zeros(3, dtype=torch.int64),
                "int64 .* floating point",
            ),
            (torch.zeros(3, 6), torch.zeros(3), r"float32 of shape \[3\], expected torch.int64 \[3\]"),
            (
                torch.zeros(3, 6),
                torch.zeros(4, dtype=torch.int64),
                r"shape \[4\], expected torch.int64 \[3\]",
            ),
            (torch.zeros(3, 6), torch.tensor([0, -1, 0]), "label -1"),
            (torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), "without rows"),
            (torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), "width 5, but 6 was learned"),
            (torch.full((3, 6), torch.nan), torch.zeros(3, dtype=torch.int64), "3 of 3 .* not finite"),
        ],
    )
    def test_bad_tasks_are_named_and_change_nothing(
        self, name: str, features: Tensor, labels: Tensor, message: str
    ) -> None:
        method = small(name)
        method.learn(*blobs([0, 1] * 5))
        before = method.state_dict()
        with pytest.raises(ValueError, match=message):
            method.learn(features, labels)
        for entry, value in method.state_dict().items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[entry])), entry

    def test_a_foreign_state_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="counts"):
            small(name).load_state_dict({"something": 1})


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="simplecil"):
        create("simple-cil")
    with pytest.raises(ValueError, match="width"):
        create("ranpac", widht=100)


def test_options_reach_the_method() -> None:
    method = create("ranpac", width=7, seed=3)
    method.learn(*blobs([0, 1] * 5))
    assert method.state_dict()["projection"].shape == (6, 7)  # type: ignore[union-attr]
