"""The mutual-information objective against its formula, entry by entry, and the two views."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mist_ext.tuners.objective import MutualInformation, TwoViews, mutual_information_loss


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


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_first_half_is_the_input_and_the_second_is_another_view() -> None:
    x = images(20)
    both = TwoViews((16, 16))(x, seed=1)
    assert both.shape == (40, 3, 16, 16)
    assert torch.equal(both[:20], x)
    assert (both[20:] != x).flatten(1).any(dim=1).all()
    assert both.min() >= 0
    assert both.max() <= 1


def test_views_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    views, x = TwoViews((16, 16)), images(8)
    before = torch.random.get_rng_state()
    first, again, other = views(x, 1), views(x, 1), TwoViews((16, 16))(x, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(first, views(x, 1))
    assert not torch.equal(first[8:], other[8:])


def test_every_sample_is_augmented_on_its_own() -> None:
    x = images(1).repeat(32, 1, 1, 1)
    augmented = TwoViews((16, 16))(x, seed=3)[32:]
    different = (augmented.flatten(1)[:, None] != augmented.flatten(1)[None]).any(dim=2)
    assert different[~torch.eye(32, dtype=torch.bool)].all()


def test_flips_greys_and_crops_come_as_often_as_they_should() -> None:
    n, side = 2000, 32
    ramp = torch.linspace(0.2, 0.8, side).expand(n, 3, side, side)
    tinted = ramp * torch.tensor([1.0, 0.8, 0.5])[:, None, None]
    augmented = TwoViews((side, side))(tinted, seed=4)[n:]
    rise = augmented[:, 0, 16, 20] - augmented[:, 0, 16, 12]
    grey = torch.isclose(augmented[:, 0], augmented[:, 2], atol=1e-4).flatten(1).all(dim=1)
    assert abs((rise < 0).double().mean() - 0.5) < 4 * math.sqrt(0.25 / n)
    assert abs(grey.double().mean() - 0.25) < 4 * math.sqrt(0.1875 / n)
    # The crop's width in parts of the image's: the area is 0.3 to 1, the ratio 3/4 to 4/3.
    width = rise[~grey].abs() / (8 * 0.6 / (side - 1))
    narrowest = math.sqrt(0.3 * 3 / 4)
    assert 0.93 * narrowest < width.min() < 1.1 * narrowest
    assert 0.95 < width.max() < 1.001
