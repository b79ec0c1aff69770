"""Parts of selections, unions, comparison and restored ones; which draws they have."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mist_ext.optim import SparseSGD
from mist_ext.selection import Selection


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30), nn.Linear(30, 7))


def selected(rate: float = 0.2) -> Selection:
    return Selection.random(model().named_parameters(), rate, seed=3)


def chosen(index: list[int], ordinal: int = 0, name: str = "a", shape: tuple[int, ...] = (3, 4)) -> Selection:
    return Selection({name: torch.tensor(index)}, {name: shape}, ordinal={name: ordinal})


def test_a_subset_keeps_entries_and_ordinals() -> None:
    whole = selected()
    part = whole.subset("^2|norm|bias")
    assert list(part) == ["0.bias", "1.bias", "2.weight", "2.bias"]
    assert part.ordinal == {"0.bias": 1, "1.bias": 3, "2.weight": 4, "2.bias": 5}
    assert torch.equal(part["2.weight"], whole["2.weight"])
    assert part.subset("weight").ordinal == {"2.weight": 4}


@pytest.mark.parametrize(
    ("names", "message"),
    [("(", r"names is '\(', which is no regular expression"), ("attn", "'attn', which matches none of the 6 tensors")],
)
def test_a_subset_of_nothing_is_refused(names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selected().subset(names)


def test_two_optimisers_over_subsets_take_the_steps_of_one_over_all(same_bits) -> None:
    one, two = model(), model()
    whole = selected()
    options: dict[str, Any] = {"lr": 0.1, "keep": 0.4, "seed": 9}
    together = [SparseSGD(one.named_parameters(), whole, **options)]
    apart = [SparseSGD(two.named_parameters(), whole.subset(names), **options) for names in ("^2", "^[01]")]
    for step in range(4):
        for m, optimizers in ((one, together), (two, apart)):
            drawing = torch.Generator().manual_seed(step)
            for p in m.parameters():
                p.grad = torch.randn(p.shape, generator=drawing)
            for optimizer in optimizers:
                optimizer.step()
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert same_bits(p, q), name
    assert not torch.equal(one[0].weight, model()[0].weight)


def test_a_selection_of_more_than_the_parameters_says_how_to_tune_a_part() -> None:
    with pytest.raises(ValueError, match=r"names '2.weight', which is not among.*selection\.subset\(pattern\)"):
        SparseSGD(list(model().named_parameters())[:4], selected())


def test_the_union_of_a_selection_s_subsets_is_the_selection() -> None:
    whole = selected()
    assert whole.subset("^2") | whole.subset("^[01]") == whole
    assert whole | whole == whole


def test_the_union_of_two_selects_what_either_does() -> None:
    assert (chosen([0, 5]) | chosen([5, 7]))["a"].tolist() == [0, 5, 7]
    either = Selection({"a": None}, {"a": (3, 4)}) | chosen([1])
    assert either["a"] is None
    joined = chosen([1]) | chosen([2], name="b", shape=(5,))
    assert joined.ordinal == {"a": 0, "b": 1}  # one ordinal cannot be two tensors'
    assert (joined.count("a"), joined.shape["b"]) == (1, (5,))
    assert (chosen([1], 4) | chosen([2], 2, "b")).ordinal == {"b": 2, "a": 4}
    three = chosen([1]) | Selection({"b": None, "c": None}, {"b": (1,), "c": (1,)})
    assert three.ordinal == {"a": 0, "c": 1, "b": 2}


def test_a_union_of_one_name_with_two_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a' was selected as \[3, 4\] and \[4, 3\]"):
        chosen([1]) | chosen([1], shape=(4, 3))


def test_selections_are_compared() -> None:
    whole = selected()
    assert whole == selected()
    assert whole == copy.deepcopy(whole)
    for other in (selected(0.3), whole.subset("^0"), Selection.whole(model().named_parameters()), {}, None):
        assert whole != other
    assert chosen([1]) != chosen([1], 1)
    assert chosen([1]) != chosen([1], shape=(4, 3))


def test_a_restored_selection_is_the_saved_one_with_its_ordinals() -> None:
    for saved in (selected(), selected().subset("^2")):
        assert Selection.from_state_dict(copy.deepcopy(saved.state_dict())) == saved
        assert Selection.from_state_dict(saved.state_dict(), model().named_parameters()) == saved


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "b"]}, "names, shapes and ordinals are not as many"),
        ({"names": 3}, "'names' is a int"),
        ({"index": None}, "'index' is a NoneType"),
        ({"shapes": [[3, 3]]}, r"'a' holds 11, expected positions from 0 to 8"),
        ({"shapes": [[4, 4]]}, r"'a' has shape \[3, 4\], but was selected as \[4, 4\]"),
        ({"ordinals": [-1]}, "the ordinal of 'a' is -1"),
        ({"index": {"b": torch.tensor([0])}}, "index of 'b', which is not among its names"),
        ({"index": {"a": [0]}}, "a saved state is a list, expected a tensor"),
        ({"index": {"a": torch.tensor([3, 3])}}, "'a' is not strictly ascending"),
    ],
)
def test_a_state_that_cannot_be_a_selection_s_is_refused_and_nothing_changed(change: dict, message: str) -> None:
    kept = chosen([2, 11])
    with pytest.raises(ValueError, match=message):
        kept.load_state_dict({**chosen([2, 11]).state_dict(), **change}, [("a", torch.zeros(3, 4))])
    assert kept == chosen([2, 11])
    with pytest.raises(ValueError, match="not the state of a selection: it has no 'ordinals'"):
        Selection.from_state_dict({"names": [], "shapes": [], "index": {}})
    with pytest.raises(ValueError, match="not the state of a selection, but a NoneType"):
        Selection.from_state_dict(None)
    with pytest.raises(TypeError, match="a selection is united with a Selection, not a int"):
        chosen([1]).union(3)


def test_two_tensors_of_one_ordinal_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' and 'b' have the ordinal 3"):
        Selection({"a": None, "b": None}, {"a": (1,), "b": (1,)}, ordinal={"a": 3, "b": 3})


@pytest.mark.parametrize("make", ["random", "magnitude", "whole"])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda m: m.parameters(), TypeError, "with their names.*one of these is a Parameter"),
        (lambda m: m, TypeError, "this is a Sequential"),
        (lambda m: m.children(), TypeError, "one of these is a Linear"),
        (lambda m: [*m.named_parameters(), ("again", m[0].weight)], ValueError, "'0.weight' and 'again' are the same"),
        (lambda m: [("a", m[0].weight), ("a", m[0].bias)], ValueError, "'a' is given twice"),
    ],
)
def test_parameters_without_names_or_with_two_are_refused(make: str, given: Any, error: type, message: str) -> None:
    options = {"random": {"rate": 0.1, "seed": 1}, "magnitude": {"rate": 0.1}, "whole": {}}[make]
    with pytest.raises(error, match=message):
        getattr(Selection, make)(given(model()), **options)


def test_what_is_no_score_or_no_pattern_is_refused() -> None:
    scores = {"a": torch.rand(3, 4)}
    with pytest.raises(ValueError, match=r"whole is '\*', which is no regular expression: nothing to repeat"):
        Selection.from_scores(scores, 0.5, whole="*")
    with pytest.raises(ValueError, match=r"whole is \['a'\], which is no regular expression"):
        Selection.from_scores(scores, 0.5, whole=["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="scores is a list, expected a mapping"):
        Selection.from_scores(list(scores), 0.5)  # type: ignore[arg-type]


def test_scores_that_are_all_zero_are_refused_unless_all_is_selected_anyway() -> None:
    zeros = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    with pytest.raises(ValueError, match="all scores are 0"):
        Selection.from_scores(zeros, 0.5)
    with pytest.warns(UserWarning, match="all scores of 'a' are 0, so their first entries are selected; leave out"):
        assert Selection.from_scores({**zeros, "c": torch.eye(3)}, 0.5)["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert Selection.from_scores({"b": zeros["b"]}, 0.5)["b"] is None
    assert Selection.from_scores(zeros, 0.5, whole="a")["a"] is None
