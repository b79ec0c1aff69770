"""What the optimisers refuse, and what they say of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import KINDS, TABLE, assert_same, give_gradients, network, selected
from torch import Tensor, nn

from mist_ext.optim import MaskedGradient, SparseAdamW, SparseSGD
from mist_ext.selection import Selection

DRAWING = [
    ({"seed": -1}, "seed is -1, expected a whole number from 0"),
    ({"seed": 2**63}, "seed is 9223372036854775808"),
    ({"seed": 1.5}, r"seed is 1\.5, expected a whole number from 0"),
    ({"keep": 2**-18}, "keep is .* rounds to keeping nothing"),
    ({"keep": 1.5}, "keep is 1.5"),
]
STEPPING = [
    ({"lr": -0.1}, "lr is -0.1, expected 0 or more, at most"),
    ({"lr": float("nan")}, "lr is nan, expected 0 or more, at most"),
    ({"lr": float("inf")}, "lr is inf, expected 0 or more, at most"),
    ({"weight_decay": -1}, "weight_decay is -1"),
    ({"lr": torch.tensor([0.1, 0.2])}, r"lr is a tensor of shape \[2\], expected one number"),
]
SGD = [({"momentum": -0.1}, "momentum is -0.1")]
ADAMW = [
    ({"eps": -1e-8}, "eps is -1e-08, expected 0 or more, at most"),
    ({"betas": (-0.1, 0.9)}, r"betas\[0\] is -0.1, expected 0 to 0.99998"),
    ({"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0, expected 0 to 0.99998"),
    ({"betas": (0.9, 0.99999)}, r"betas\[1\] is 0.99999"),
    ({"betas": (float("nan"), 0.9)}, r"betas\[0\] is nan"),
]
REFUSED = [
    *((SparseSGD, *case) for case in DRAWING + STEPPING + SGD),
    *((SparseAdamW, *case) for case in DRAWING + STEPPING + ADAMW),
    *((MaskedGradient, *case) for case in DRAWING),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED)
def test_settings_out_of_range_are_refused(make: type, options: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        make(model.named_parameters(), selected(model), **options)
    if make is not MaskedGradient and "seed" not in options:
        with pytest.raises(ValueError, match=message):
            make([{"params": model.named_parameters(), **options}], selected(model))


@pytest.mark.parametrize("make", [SparseSGD, SparseAdamW, MaskedGradient])
def test_a_selected_parameter_that_is_missing_or_of_another_shape_is_named(make: type) -> None:
    model = network()
    without = [(name, p) for name, p in model.named_parameters() if name != "2.weight"]
    with pytest.raises(ValueError, match=r"names '2.weight', which is not among the parameters given"):
        make(without, selected(model))
    with pytest.raises(ValueError, match=r"'2.weight' has shape \[40, 6\], but was selected as \[6, 40\]"):
        make([*without, ("2.weight", nn.Parameter(torch.zeros(40, 6)))], selected(model))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (torch.zeros(8, 4).t(), "'a' is not contiguous"),
        (torch.zeros(4, 8, dtype=torch.float64), "'a' is torch.float64, expected float32, bfloat16 or float16"),
    ],
)
def test_parameters_that_the_kernels_cannot_take_are_named(kind, parameter: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.sparse([("a", nn.Parameter(parameter))], Selection({"a": torch.tensor([1])}, {"a": (4, 8)}))


@pytest.mark.parametrize(
    ("codes", "table", "message"),
    [
        (torch.zeros(2, dtype=torch.uint8), TABLE, r"scale_code of 'a' is torch.uint8 \[2\], expected uint8 \[1\]"),
        (torch.zeros(1), TABLE, r"scale_code of 'a' is torch.float32"),
        (torch.zeros(1, dtype=torch.uint8), None, r"needs scale_table, float32 \[256\]"),
        (torch.zeros(1, dtype=torch.uint8), TABLE[:9], r"needs scale_table, float32 \[256\]"),
    ],
)
def test_codes_that_do_not_fit_are_refused(kind, codes: Tensor, table: Tensor | None, message: str) -> None:
    selection = Selection({"a": torch.tensor([1])}, {"a": (4, 8)})
    with pytest.raises(ValueError, match=message):
        kind.sparse([("a", nn.Parameter(torch.zeros(4, 8)))], selection, scale_code={"a": codes}, scale_table=table)


def test_parameters_without_names_are_refused(kind) -> None:
    model = network()
    with pytest.raises(TypeError, match="must be given with their names"):
        kind.sparse(model.parameters(), selected(model))


@pytest.mark.parametrize(("name", "state"), [(name, state) for name, kind in KINDS.items() for state in kind.state])
def test_an_op_s_error_names_the_parameter(name: str, state: str, same_bits: Callable) -> None:
    model, kind = network(), KINDS[name]
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    give_gradients(model, 0)
    before = copy.deepcopy(model)
    right = optimizer.state[model[2].weight][state]
    optimizer.state[model[2].weight][state] = right.repeat(2)[::2]
    with pytest.raises(RuntimeError, match=rf"{kind.state[state]}\[4\] \('2.weight'\) is not contiguous"):
        optimizer.step()
    assert_same(model, before, same_bits)
    assert optimizer.steps == 0


def test_a_group_outside_the_selection_is_refused_and_not_added(kind) -> None:
    model = network()
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    with pytest.raises(ValueError, match="'another'"):
        optimizer.add_param_group({"params": [("another", nn.Parameter(torch.zeros(3)))]})
    assert len(optimizer.param_groups) == 1
