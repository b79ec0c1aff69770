"""Selection: how many entries, which ones, whole tensors, saving and loading, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mist_ext.indices import selected_count
from mist_ext.selection import Selection


def published_count(n: int, rate: Fraction) -> int:
    """How many of n different scores reach their (1 - rate) quantile."""
    rank = (n - 1) * (1 - rate)
    if rank.denominator == 1:  # the quantile is a score itself: no interpolation that could miss it
        return n - rank.numerator
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double()
    return int((scores >= torch.quantile(scores, float(1 - rate))).sum())


@given(n=st.integers(1, 5000), rate=st.fractions(Fraction(1, 1000), 1, max_denominator=1000))
def test_the_count_is_that_of_the_published_quantile(n: int, rate: Fraction) -> None:
    assert selected_count(n, float(rate)) == published_count(n, rate)


@pytest.mark.parametrize("percent", range(1, 101))
def test_the_count_is_exact_where_the_quantile_is_a_score(percent: int) -> None:
    for n in [*range(1, 200), 1001, 589824, 2359296, 2400001]:
        exact = n - math.ceil((n - 1) * (1 - Fraction(percent, 100)))
        assert selected_count(n, percent / 100) == exact


def test_nothing_is_selected_of_nothing_and_something_of_anything() -> None:
    assert selected_count(0, 0.05) == 0
    assert selected_count(1, 1e-6) == 1


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate is"):
        selected_count(10, rate)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30), nn.Linear(30, 7))


def test_the_highest_scores_of_each_tensor_are_selected(device: torch.device) -> None:
    scores = {name: torch.rand(p.shape, device=device) for name, p in model().named_parameters()}
    selection = Selection.from_scores(scores, 0.1)
    assert list(selection) == list(scores)
    assert selection.by_score == ["0.weight", "2.weight"]
    for name in selection.by_score:
        index = selection[name]
        assert index is not None
        assert index.dtype == torch.int32
        assert len(index) == selection.count(name) == selected_count(scores[name].numel(), 0.1)
        lowest = scores[name].flatten()[index.long()].min()
        assert (scores[name] >= lowest).sum() == len(index)
    assert selection.selected_fraction == pytest.approx((60 + 21) / 810)
    assert [selection.ordinal[name] for name in selection] == list(range(6))


def test_vectors_and_tensors_of_a_matching_name_are_selected_whole() -> None:
    scores = {
        "cls_token": torch.rand(1, 1, 8),
        "norm.table": torch.rand(4, 4),
        "weight": torch.rand(4, 4),
        "scale": torch.rand(()),
    }
    assert Selection.from_scores(scores, 0.5).by_score == ["cls_token", "norm.table", "weight"]
    selection = Selection.from_scores(scores, 0.5, whole="bias|norm|^cls")
    assert selection.by_score == ["weight"]
    assert selection["norm.table"] is None
    assert selection.count("norm.table") == 16
    assert selection.count("scale") == 1


def test_scores_need_not_be_contiguous() -> None:
    score = torch.rand(6, 9)
    expected = Selection.from_scores({"a": score.t().contiguous()}, 0.2)["a"]
    assert torch.equal(Selection.from_scores({"a": score.t()}, 0.2)["a"], expected)


def test_random_selects_as_many_and_follows_its_seed() -> None:
    named = list(model().named_parameters())
    by_score = Selection.from_scores({name: torch.rand(p.shape) for name, p in named}, 0.1)
    first, again, other = (Selection.random(named, 0.1, seed) for seed in (1, 1, 2))
    for name in by_score:
        assert first.count(name) == by_score.count(name)
    for name in by_score.by_score:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_random_reaches_every_entry_alike() -> None:
    hits = torch.zeros(400)
    for seed in range(400):
        hits[Selection.random([("a", torch.empty(20, 20))], 0.1, seed)["a"].long()] += 1
    assert hits.sum() == 400 * selected_count(400, 0.1)
    assert abs(hits - 40).max() < 5 * math.sqrt(40)


def test_random_leaves_the_global_generator_alone() -> None:
    named = list(model().named_parameters())
    before = torch.random.get_rng_state()
    Selection.random(named, 0.1, 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_magnitude_selects_the_largest_values_of_either_sign() -> None:
    parameter = torch.tensor([[0.1, -5.0, 0.2], [3.0, -0.3, 0.0]]).bfloat16()
    assert Selection.magnitude([("a", parameter)], 0.2)["a"].tolist() == [1, 3]


def test_whole_selects_everything() -> None:
    named = list(model().named_parameters())
    selection = Selection.whole(named)
    assert selection.by_score == []
    assert [selection.count(name) for name in selection] == [p.numel() for _, p in named]
    assert selection.selected_fraction == 0


def test_a_saved_selection_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    selection = Selection.from_scores({n: torch.rand(p.shape) for n, p in model().named_parameters()}, 0.3)
    torch.save(selection.state_dict(), tmp_path / "selection.pt")
    loaded = Selection({}, {})
    loaded.load_state_dict(torch.load(tmp_path / "selection.pt", weights_only=True))
    assert list(loaded) == list(selection)
    assert loaded.shape == selection.shape
    for name, index in selection.items():
        assert loaded.ordinal[name] == selection.ordinal[name]
        if index is None:
            assert loaded[name] is None
        else:
            assert loaded[name].dtype == torch.int32
            assert torch.equal(loaded[name], index)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 6], "holds 6, expected positions from 0 to 5"),
        ([-1, 2], "holds -1, expected positions from 0 to 5"),
        ([2, 1], "not strictly ascending"),
        ([1, 1], "not strictly ascending"),
        ([[0, 1]], r"torch.int64 \[1, 2\], expected int32 with one dimension"),
        ([0.0, 1.0], "torch.float32"),
        ([2**31], "holds 2147483648"),
    ],
)
def test_an_index_that_points_outside_or_is_out_of_order_is_refused_by_name(index: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"'blocks.0.weight'.*{message}"):
        Selection({"blocks.0.weight": torch.tensor(index)}, {"blocks.0.weight": (2, 3)})


def test_a_loaded_index_is_checked_too() -> None:
    state = Selection({"a": torch.tensor([0, 5])}, {"a": (2, 3)}).state_dict()
    state["index"]["a"] = torch.tensor([0, 6])
    with pytest.raises(ValueError, match="'a' holds 6"):
        Selection({}, {}).load_state_dict(state)


def test_names_must_agree() -> None:
    with pytest.raises(ValueError, match=r"in one only: \['b'\]"):
        Selection({"a": None, "b": None}, {"a": (2,)})


def test_a_nan_score_names_the_parameter(device: torch.device) -> None:
    scores = {"bias": torch.rand(4), "first": torch.rand(3, 3), "second": torch.rand(3, 3)}
    scores = {name: score.to(device) for name, score in scores.items()}
    scores["second"][1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"'second'.* is NaN at entry 5"):
        Selection.from_scores(scores, 0.5)


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_an_entry_of_score_minus_infinity_is_never_selected(device: torch.device, rate: float) -> None:
    score = torch.arange(40.0, device=device).view(8, 5)
    score[2:6] = -torch.inf
    selected = Selection.from_scores({"a": score}, rate)["a"]
    allowed = [*range(10), *range(30, 40)]
    assert selected is not None
    assert selected.tolist() == sorted(allowed[-selected_count(40, rate) :])


def test_selections_of_consecutive_parts_become_that_of_all() -> None:
    scores = {f"layer{i}.weight": torch.rand(20, 10, generator=torch.Generator().manual_seed(i)) for i in range(5)}
    names = list(scores)
    parts = [Selection.from_scores({n: scores[n] for n in part}, 0.05) for part in (names[:1], names[1:4], names[4:])]
    assert parts[0].followed_by(parts[1]).followed_by(parts[2]) == Selection.from_scores(scores, 0.05)
    with pytest.raises(ValueError, match=r"'layer1.weight' is in both selections; `union` unites them"):
        parts[1].followed_by(parts[1])
