"""Groups as other libraries make them, groups of which nothing is selected, and names that are looked up."""

from __future__ import annotations

import pytest
import torch
from small_networks import assert_same, network, selected, train
from torch import nn

from mist_ext.optim import MaskedGradient, SparseExchange
from mist_ext.selection import Selection


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_group_of_which_nothing_is_selected_may_stand_anywhere(kind, place, same_bits) -> None:
    models = [network(), network()]
    selection = selected(models[0]).subset("^0|^2")
    optimizers = []
    for model in models:
        named = list(model.named_parameters())
        groups = [{"params": named[:2]}, {"params": named[4:], "lr": 0.3}]
        if model is models[0]:
            groups.insert(place, {"params": named[2:4], "lr": 0.7})
        optimizers.append(kind.sparse(groups, selection, lr=0.1, keep=0.5))
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(3))
    assert_same(*models, same_bits)
    first = optimizers[0]
    assert first.param_groups[place]["params"] == first.param_groups[place]["param_names"] == []
    first.load_state_dict(first.state_dict())
    first.add_param_group({"params": []})
    train(models[0], first, range(1))
    assert first.steps == 4


@pytest.mark.parametrize("masked", [False, True])
def test_a_selection_of_nothing_is_refused(kind, masked) -> None:
    make = MaskedGradient if masked else kind.sparse
    with pytest.raises(ValueError, match="the selection names no tensor, so there is nothing to tune"):
        make(network().named_parameters(), Selection({}, {}))


def test_names_are_looked_up_in_the_model(kind, same_bits) -> None:
    models = [network() for _ in range(4)]
    few = [list(model.parameters()) for model in models]
    given = [
        models[0].named_parameters(),
        models[1].parameters(),
        [{"params": few[2][3:]}, {"params": few[2][1:3]}, {"params": few[2][0]}],  # as torch takes them
        [few[3][0], *list(models[3].named_parameters())[1:]],
    ]
    for model, parameters in zip(models, given, strict=True):
        optimizer = kind.sparse(parameters, selected(model), lr=0.1, keep=0.5, model=model)
        train(model, optimizer, range(3))
        assert_same(model, models[0], same_bits)
    assert not torch.equal(models[0][0].weight, network()[0].weight)


def test_a_parameter_that_is_not_the_model_s_is_refused(kind) -> None:
    model = network()
    with pytest.raises(ValueError, match=r"a parameter of shape \[3\] is not one of the model's"):
        kind.sparse([nn.Parameter(torch.zeros(3))], selected(model), model=model)
    with pytest.raises(TypeError, match=r"with their names.*or with model=model"):
        kind.sparse([{"params": model.parameters()}], selected(model))


def test_a_mask_looks_names_up_too() -> None:
    model = network()
    masks = [
        MaskedGradient(model.named_parameters(), selected(model)),
        MaskedGradient(model.parameters(), selected(model), model=model),
    ]
    assert masks[0].parameters.keys() == masks[1].parameters.keys()


def test_a_mask_over_one_parameter_under_two_names_is_refused() -> None:
    """It would be masked twice, by two draws."""
    layer = nn.Linear(6, 6)
    shapes = {"first.weight": (6, 6), "last.weight": (6, 6)}
    pairs = [("first.weight", layer.weight), ("last.weight", layer.weight)]
    with pytest.raises(ValueError, match="are the same parameter"):
        MaskedGradient(pairs, Selection(dict.fromkeys(shapes), shapes))


def test_tied_weights_of_which_one_name_is_selected_may_be_given_under_both(kind) -> None:
    layer = nn.Linear(6, 6, bias=False)
    pairs = [("first.weight", layer.weight), ("last.weight", layer.weight)]
    optimizer = kind.sparse(pairs, Selection.whole(pairs[:1]))
    assert optimizer.param_groups[0]["param_names"] == ["first.weight"]


def test_codes_of_what_is_not_selected_are_refused(kind) -> None:
    model = network()
    codes = {"2.wieght": torch.zeros(3, dtype=torch.uint8)}
    for make in (kind.sparse, MaskedGradient):
        with pytest.raises(ValueError, match=r"scale_code names '2.wieght', which is not in the selection"):
            make(model.named_parameters(), selected(model), scale_code=codes)
        with pytest.raises(ValueError, match="step is -1, expected a whole number from 0"):
            make(model.named_parameters(), selected(model), step=-1)


def test_a_sparse_gradient_of_a_mask_is_refused_by_name() -> None:
    model = nn.Embedding(8, 3, sparse=True)
    masked = MaskedGradient(model.named_parameters(), selected(model))
    model(torch.tensor([2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"the gradient of 'weight' is a sparse tensor.*sparse=False"):
        masked.apply_()


def test_an_exchange_takes_sparse_optimisers_only() -> None:
    with pytest.raises(TypeError, match="SparseExchange takes a SparseSGD or SparseAdamW, not AdamW"):
        SparseExchange(torch.optim.AdamW(network().parameters()))  # type: ignore[arg-type]
