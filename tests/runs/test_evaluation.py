"""How well a method recognises test images, against counting by hand."""

from __future__ import annotations

import pytest
import torch

from mist_ext.methods import create
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.runs.evaluation import Evaluation


@pytest.mark.parametrize("method", ["simplecil", "fecam"])
@pytest.mark.parametrize("classes", [3, 40])
def test_accuracies_are_those_of_the_scores(method: str, classes: int) -> None:
    drawing = torch.Generator().manual_seed(classes)
    labels = torch.arange(classes).repeat_interleave(12)
    centres = torch.rand(classes, 8, generator=drawing)
    features = centres[labels] + 0.4 * torch.rand(len(labels), 8, generator=drawing)
    learner = create(method)
    learner.learn(features, labels)
    unlike = features + torch.randn(features.shape, generator=drawing)
    tests = [(unlike[labels < 2], labels[labels < 2]), (unlike[labels >= 2], labels[labels >= 2])]
    found = Evaluation.of(learner, tests)
    best = five = 0
    for x, y in tests:
        for scores, label in zip(learner.scores(x).tolist(), y.tolist(), strict=True):
            better = sum(score > scores[label] for score in scores)
            best += better == 0
            five += better < 5
    assert found.accuracy == pytest.approx(100 * best / len(labels))
    assert found.top5 == pytest.approx(100 * five / len(labels))
    assert found.accuracy <= found.top5
    assert found.accuracy < 100
    assert (found.top5 == 100) == (classes < 5)
    assert found.per_task == [pytest.approx(100 * (learner.predict(x) == y).float().mean().item()) for x, y in tests]


def test_equal_scores_go_to_the_class_that_was_seen_first_and_none_to_one_that_was_not() -> None:
    learner = create("simplecil")
    learner.learn(torch.eye(9)[[0, 1, 2, 3, 4, 5, 7]], torch.tensor([0, 1, 2, 3, 4, 5, 7]))  # no image of class 6
    same = torch.zeros(1, 9)
    assert learner.best(same, 5).tolist() == [[0, 1, 2, 3, 4]]
    assert learner.best(same, 20).tolist() == [[0, 1, 2, 3, 4, 5, 7, -1]]
    assert learner.predict(same).tolist() == [0]
    found = Evaluation.of(learner, [(same, torch.tensor([5])), (same, torch.tensor([6]))])
    assert (found.accuracy, found.top5) == (0, 0)


def test_a_method_that_predicts_in_its_own_way_is_measured_by_that() -> None:
    class Constant(SimpleCIL):
        def predict(self, features: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(features), dtype=torch.int64)

    learner = Constant()
    learner.learn(torch.eye(2), torch.tensor([0, 1]))
    assert Evaluation.of(learner, [(torch.eye(2), torch.tensor([1, 1]))]).accuracy == 100
