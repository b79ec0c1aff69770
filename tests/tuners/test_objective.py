"""The mutual-information objective against its formula, entry by entry, and the two views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mist_ext.tuners.objective import MutualInformation, mutual_information_loss


def slow_loss(z: list[list[float]], labels: list[int], temperature: float) -> float:
    """The formula in Python's own double precision."""
    views, both = len(z), labels * 2
    pair_term = class_term = 0.0
    for i in range(views):
        s = [sum(a * b for a, b in zip(z[i], z[k], strict=True)) / temperature for k in range(views)]
        top = max(s)
        total = sum(math.exp(s[k] - top) for k in range(views) if k != i)
        p = [0.0 if k == i else math.exp(s[k] - top) / (total + 1e-8) for k in range(views)]
        pair_term += -math.log(p[(i + views // 2) % views] + 1e-8)
        same = [k for k in range(views) if both[k] == both[i]]
        class_term += sum(-math.log(p[k] + 1e-8) for k in same) / len(same)
    return pair_term / views + 2 * class_term / views


def features(batch: int, width: int = 6, seed: int = 0) -> Tensor:
    drawn = torch.randn(2 * batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn)


@pytest.mark.parametrize("labels", [[0], [3, 3], [0, 1], [0, 1, 0, 2, 2, 2, 9]])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_loss_is_the_formula_s(labels: list[int], temperature: float) -> None:
    z = features(len(labels), seed=len(labels))
    expected = slow_loss(z.tolist(), labels, temperature)
    assert mutual_information_loss(z, torch.tensor(labels), temperature).item() == pytest.approx(expected, rel=1e-12)
    single = mutual_information_loss(z.float(), torch.tensor(labels), temperature).item()
    assert single == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_the_loss_s_own() -> None:
    z = features(4).requires_grad_()
    labels = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda z: mutual_information_loss(z, labels, 0.5), z)


def test_equal_pairs_and_classes_far_apart_are_the_least_loss() -> None:
    labels = torch.tensor([0, 1])
    together = mutual_information_loss(torch.eye(2).repeat(2, 1), labels)
    apart = mutual_information_loss(torch.cat([torch.eye(2), -torch.eye(2)]), labels)
    assert together < apart
    assert together.item() == pytest.approx(2 * 0.5 * -math.log(1e-8), rel=1e-4)  # the diagonal's constant alone


def test_the_module_projects_and_normalises() -> None:
    torch.manual_seed(0)
    objective = MutualInformation(5, dimensions=7, temperature=0.3)
    x, labels = torch.randn(6, 5), torch.tensor([0, 1, 1])
    z = x @ objective.projector.weight.T + objective.projector.bias
    expected = mutual_information_loss(z / z.norm(dim=1, keepdim=True), labels, 0.3)
    torch.testing.assert_close(objective(x, labels), expected)
    assert objective(x, labels).requires_grad


@pytest.mark.parametrize(("rows", "labels"), [(3, 2), (4, 4), (0, 0)])
def test_two_rows_a_label_are_required(rows: int, labels: int) -> None:
    with pytest.raises(ValueError, match=rf"z has shape \[{rows}, 4\], expected \[{2 * labels}, d\]"):
        mutual_information_loss(torch.ones(rows, 4), torch.zeros(labels, dtype=torch.int64))
