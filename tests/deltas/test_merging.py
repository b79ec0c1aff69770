"""Merging: each method against the equation of its paper, written densely here, and two of them against peft's code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor, nn
from tuned_models import chain_of_tasks, tasks_of_one_base

from mist_ext.deltas import TaskDelta
from mist_ext.deltas.chains import rebase
from mist_ext.deltas.change import Change
from mist_ext.deltas.digests import tensor_digest
from mist_ext.deltas.merging import METHODS, merge
from mist_ext.deltas.vectors import positions_of
from mist_ext.kernels import reference
from mist_ext.kernels.keep_rule import keep_threshold
from mist_ext.seeding import draw_seed

BASE, TASKS = tasks_of_one_base(3)
WEIGHTS = torch.tensor([1.0, 0.5, -0.25], dtype=torch.float64)


def dense_vectors() -> list[dict[str, Tensor]]:
    """What each task adds to every parameter: theta_t - theta_0."""
    vectors = []
    for delta in TASKS:
        tuned = copy.deepcopy(BASE)
        delta.apply_(tuned)
        before = BASE.state_dict()
        vectors.append({name: value.double() - before[name].double() for name, value in tuned.state_dict().items()})
    return vectors


def flat(vector: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in vector.values()])


def dropped(number: int, density: float, seed: int) -> Tensor:
    """(m * tau) / (1 - p), with the mask of the package's counter-based rule, on its oracle."""
    delta, tau = TASKS[number], dense_vectors()[number]
    for name, change in delta.changes.items():
        positions = positions_of(change)
        key = draw_seed(seed, "dare", name, tensor_digest(positions), tensor_digest(change.new))
        mask = torch.zeros(change.numel, dtype=torch.float64)
        kept = reference.keep_mask(key, 0, 0, len(positions), keep_threshold(density), 0)
        mask[positions] = kept.double()
        tau[name] = tau[name] * mask.view(change.shape) / density
    return flat(tau)


def trimmed(tau: Tensor, density: float) -> Tensor:
    """The largest of the entries that the task changed."""
    k = int(density * int(tau.count_nonzero()))
    least = tau.abs().sort(descending=True).values[k - 1]
    return torch.where(tau.abs() >= least, tau, 0)


def elected(taus: Tensor) -> Tensor:
    """gamma = sgn(sum tau), and the mean of those that agree."""
    gamma = taus.sum(0).sign()
    merged = torch.zeros_like(gamma)
    for p in gamma.nonzero().flatten().tolist():
        agreeing = [value for value in taus[:, p].tolist() if value * float(gamma[p]) > 0]
        merged[p] = sum(agreeing) / len(agreeing)
    return merged


def expected(method: str) -> Tensor:
    taus = torch.stack([flat(vector) for vector in dense_vectors()])
    weighted = WEIGHTS[:, None]
    if method == "linear":
        return (weighted * taus).sum(0) / WEIGHTS.sum()
    if method == "task_arithmetic":
        return 0.7 * (weighted * taus).sum(0)
    if method == "ties":
        return 0.7 * elected(weighted * torch.stack([trimmed(tau, 0.4) for tau in taus]))
    drops = torch.stack([dropped(number, 0.4, 5) for number in range(3)])
    return 0.7 * ((weighted * drops).sum(0) if method == "dare_linear" else elected(weighted * drops))


OPTIONS: dict[str, dict[str, float | int]] = {
    "linear": {},
    "task_arithmetic": {"lambda_": 0.7},
    "ties": {"lambda_": 0.7, "density": 0.4},
    "dare_linear": {"lambda_": 0.7, "density": 0.4, "seed": 5},
    "dare_ties": {"lambda_": 0.7, "density": 0.4, "seed": 5},
}


def result(delta: TaskDelta, base: nn.Module = BASE) -> Tensor:
    model = copy.deepcopy(base)
    delta.apply_(model)
    return flat(dict(model.state_dict()))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_its_papers_equation(method: str) -> None:
    merged = merge(TASKS, method, weights=WEIGHTS.tolist(), **OPTIONS[method])
    theta = flat({name: value.double() for name, value in BASE.state_dict().items()})
    wanted = (theta + expected(method)).float()
    # In another order of additions the last bit of float64 differs, and now and then with it that of float32.
    torch.testing.assert_close(result(merged), wanted, rtol=1.3e-7, atol=1e-12)
    assert int((result(merged) != wanted).sum()) <= 3
    assert int((wanted != theta.float()).sum()) > 100
    merged.undo_(model := _applied(merged))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), BASE.parameters(), strict=True))


def _applied(delta: TaskDelta) -> nn.Module:
    model = copy.deepcopy(BASE)
    delta.apply_(model)
    return model


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("task_arithmetic", lambda taus, ones: merge_utils.task_arithmetic(taus, ones)),
        ("ties", lambda taus, ones: merge_utils.ties(taus, ones, density=0.5)),
    ],
)
def test_a_method_agrees_with_that_of_its_name_in_peft(method: str, theirs: Callable) -> None:
    generator = torch.Generator().manual_seed(3)
    olds = torch.randn(60, generator=generator)
    taus = [torch.randn(60, generator=generator) for _ in range(3)]
    deltas = [TaskDelta({"w": Change((60,), torch.float32, None, olds, olds + tau)}, "base") for tau in taus]
    rounded = [delta.changes["w"].new - olds for delta in deltas]
    merged = merge(deltas, method, **({"density": 0.5} if method == "ties" else {}))
    found = olds.index_put((positions_of(merged.changes["w"]),), merged.changes["w"].new.flatten())
    torch.testing.assert_close(found, olds + theirs(rounded, torch.ones(3)), rtol=1e-5, atol=1e-6)


def test_one_task_alone_stays_as_it_is(same_bits: Callable) -> None:
    for method in ("linear", "task_arithmetic"):
        assert same_bits(result(merge(TASKS[:1], method)), result(TASKS[0]))


def test_a_weight_of_zero_is_a_task_left_out(same_bits: Callable) -> None:
    for method, options in OPTIONS.items():
        without = merge([TASKS[0], TASKS[2]], method, weights=[1, 0.5], **options)
        zero = merge(TASKS, method, weights=[1, 0, 0.5], **options)
        assert same_bits(result(zero), result(without)), method


def test_drops_depend_on_the_seed_and_on_no_global_state(same_bits: Callable) -> None:
    torch.manual_seed(1)
    first = merge(TASKS, "dare_linear", density=0.3, seed=1)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, other = (merge(TASKS, "dare_linear", density=0.3, seed=seed) for seed in (1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert first == again
    assert not same_bits(result(first), result(other))


def test_opposite_changes_cancel() -> None:
    old = torch.zeros(4)
    given = [torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([-1.0, 1.0, -5.0, 4.0])]
    deltas = [TaskDelta({"w": Change((4,), torch.float32, None, old, new)}, "base") for new in given]
    merged = merge(deltas, "ties", density=1).changes["w"]
    assert positions_of(merged).tolist() == [1, 2, 3]  # the first has no sign, and keeps its bits
    assert merged.new.tolist() == [1.5, -5.0, 4.0]


def test_weights_are_not_rounded_and_no_change_keeps_the_bits() -> None:
    old = torch.tensor([-0.0, 0.0, 1.0], dtype=torch.float64)
    new = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    delta = TaskDelta({"w": Change((3,), old.dtype, None, old, new)}, "base")
    assert merge([delta], weights=[0.1]).changes["w"].new.tolist() == [0.1, 0.1, 1.1]
    assert merge([delta], weights=[0.1]).info["merged"]["weights"] == [0.1]
    assert not merge([delta], weights=[0.0]).changes  # not even the sign of a zero


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_merged(dtype: torch.dtype) -> None:
    old, new = torch.zeros(4).to(dtype), torch.tensor([1.0, 0.0, 2.0, 448.0]).to(dtype)
    delta = TaskDelta({"w": Change((4,), dtype, None, old, new)}, "base")
    merged = merge([delta, delta], "linear").changes["w"]
    assert merged.new.float().tolist() == new.float().tolist()


def test_low_precision_is_rounded_once() -> None:
    old = torch.tensor([1.0, 256.0], dtype=torch.bfloat16)
    news = [torch.tensor([1.0078125, 258.0]), torch.tensor([1.0, 256.0]), torch.tensor([1.0078125, 258.0])]
    deltas = [TaskDelta({"w": Change((2,), old.dtype, None, old, new.bfloat16())}, "base") for new in news]
    merged = merge(deltas, "linear").changes["w"]
    exact = old.double() + sum(new.bfloat16().double() - old.double() for new in news) / 3
    assert torch.equal(merged.new, exact.bfloat16()[positions_of(merged)])


def test_tasks_of_different_bases_are_refused_with_what_differs() -> None:
    _, chain = chain_of_tasks(2)
    with pytest.raises(
        ValueError, match=r"delta 2 has the base [0-9a-f]{32}.*: \d+ entries of .*they are a chain: rebase it"
    ):
        merge(chain)
    merge(rebase(chain))
    changed = TaskDelta({"w": Change((2,), torch.float32, None, torch.zeros(2), torch.ones(2))}, "")
    other = TaskDelta({"w": Change((2,), torch.float32, None, torch.tensor([0.0, 5]), torch.ones(2))}, "")
    with pytest.raises(ValueError, match="another base than delta 1: 1 entries of 'w' had other values"):
        merge([changed, other])
    wider = TaskDelta({"w": Change((3,), torch.float32, None, torch.zeros(3), torch.ones(3))}, "")
    with pytest.raises(ValueError, match=r"'w' is torch.float32 \[2\] and torch.float32 \[3\]"):
        merge([changed, wider])


def test_integers_are_not_averaged() -> None:
    def counted(value: int) -> TaskDelta:
        return TaskDelta({"steps": Change((), torch.int64, None, torch.tensor(0), torch.tensor(value))}, "base")

    assert merge([counted(3), counted(3)]).changes["steps"].new == 3
    with pytest.raises(ValueError, match=r"'steps', of torch\.int64, was changed differently"):
        merge([counted(3), counted(4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tise"}, "method is 'tise', expected one of linear, task_arithmetic, ties"),
        ({"method": "linear", "lambda_": 1.0}, "lambda_ is 1.0, but 'linear' has none"),
        ({"density": 0.5}, "density is 0.5, but 'task_arithmetic' has none; it is an option of ties"),
        ({"method": "ties", "seed": 1}, "seed is 1, but 'ties' has none"),
        ({"method": "ties", "density": 0.0}, "density is 0.0, expected a share above 0"),
        ({"weights": [1.0]}, "there are 1 weights for 3 deltas"),
        ({"method": "linear", "weights": [1.0, -1.0, 0.0]}, "the weights add up to 0"),
        ({"weights": [1.0, float("nan"), 0.0]}, "expected finite numbers"),
        ({"lambda_": 1e300}, "not finite after merging; lower the weights or lambda"),
    ],
)
def test_a_mistake_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge(TASKS, **options)


def test_forward_only_deltas_are_refused() -> None:
    base, (first, _) = tasks_of_one_base(2)
    tuned = copy.deepcopy(base)
    first.apply_(tuned)
    with pytest.raises(ValueError, match="delta 1 is forward-only"):
        merge([TaskDelta.between(base, tuned, forward_only=True)])
