"""States that do not fit are refused with the difference, before anything is changed; those that fit, by name."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import TABLE, Kind, assert_same, give_gradients, network, selected, train
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from mist_ext.optim import MaskedGradient, SparseAdamW, SparseSGD
from mist_ext.selection import Selection


def run(kind: Kind, selection: Selection | None = None, dtype: torch.dtype = torch.float32, **options: Any) -> tuple:
    model = network(dtype)
    optimizer = kind.sparse(
        model.named_parameters(), selection or selected(model), **{"lr": 0.1, "keep": 0.5, "seed": 7, **options}
    )
    train(model, optimizer, range(2))
    return model, optimizer


def other_rate() -> Selection:
    return selected(network(), 0.3)


def reordered() -> Selection:
    selection = selected(network())
    names = list(selection)[::-1]
    return Selection({name: selection[name] for name in names}, {name: selection.shape[name] for name in names})


def other_entries() -> Selection:
    return Selection.random(network().named_parameters(), 0.2, seed=5)


def whole() -> Selection:
    return Selection.whole(network().named_parameters())


def fewer() -> Selection:
    return selected(network()).subset("^0|^1")


CODES = {"0.weight": torch.zeros(selected(network()).count("0.weight"), dtype=torch.uint8)}
DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 0}, "saved with the seed 7, but this optimiser has 0"),
    (
        {"selection": other_rate},
        r"'index' of '0.weight' is torch.int32 \[96\] in the state, expected torch.int32 \[144\]",
    ),
    ({"selection": other_entries}, "other selected entries of '0.weight'"),
    ({"selection": whole}, "'0.weight' differs in 'index': this optimiser has none"),
    ({"selection": reordered}, "'0.weight' was saved with the ordinal 0, but selected with 5"),
    ({"selection": fewer}, "saved, but not selected, was '2.bias' and 1 more"),
    ({"dtype": torch.bfloat16}, "'0.weight' differs in 'master': this optimiser needs one"),
    ({"scale_code": CODES, "scale_table": TABLE}, "digest of scale_table None, but"),
]


def bits(model: nn.Module, optimizer: Any) -> list[Tensor]:
    states = [value for p in model.parameters() for value in optimizer.state[p].values()]
    return [t.detach().clone() for t in (*model.parameters(), *states, optimizer.param_groups[0]["step"])]


@pytest.mark.parametrize(("options", "message"), DIFFERENCES)
def test_the_state_of_another_run_is_refused_with_the_difference(kind, options, message, same_bits) -> None:
    state = run(kind)[1].state_dict()
    made = {key: value() if callable(value) else value for key, value in options.items()}
    model, optimizer = run(kind, **made)
    before, rate = bits(model, optimizer), optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert all(map(same_bits, bits(model, optimizer), before))
    assert optimizer.param_groups[0]["lr"] == rate
    train(model, optimizer, range(1))


def test_the_state_of_another_kind_of_optimiser_is_refused() -> None:
    model = network()
    ours, theirs = (make(model.named_parameters(), selected(model)) for make in (SparseSGD, SparseAdamW))
    with pytest.raises(ValueError, match=r"group 0 has no 'drop': the state is another kind of optimiser's"):
        ours.load_state_dict(theirs.state_dict())
    dense = torch.optim.SGD(model.named_parameters())
    with pytest.raises(ValueError, match=r"group 0 has no 'identity'"):
        ours.load_state_dict(dense.state_dict())

    class Mine(SparseSGD):
        pass

    with pytest.raises(ValueError, match=r"saved with the optimiser 'Mine', but this optimiser has 'SparseSGD'"):
        ours.load_state_dict(Mine(model.named_parameters(), selected(model)).state_dict())


def test_the_state_of_a_wider_model_of_the_same_names_is_refused(kind) -> None:
    """Its positions would lie outside of these parameters."""

    def made(width: int) -> Any:
        pairs = [("weight", nn.Parameter(torch.ones(width, 50)))]
        return kind.sparse(pairs, Selection({"weight": torch.arange(0, 50)}, {"weight": (width, 50)}))

    narrow, wide = made(1), made(1000)
    with pytest.raises(
        ValueError, match=r"'weight' was saved with the shape \[1000, 50\], but selected with \[1, 50\]"
    ):
        narrow.load_state_dict(wide.state_dict())


def change(path: str, value: Any) -> Callable[[dict], None]:
    """Replace, or by a function change, one thing in a state: ``state/0/index`` or ``group/step``."""

    def forge(state: dict) -> None:
        *places, last = path.split("/")
        at: Any = state["param_groups"][0] if places[0] == "group" else state["state"]
        for place in places[1:]:
            at = at[int(place) if place.isdigit() else place]
        at[last] = value(at[last]) if callable(value) else value

    return forge


def beyond(index: Tensor) -> Tensor:
    return torch.cat([index[:-1], torch.tensor([10**6], dtype=torch.int32)])


FORGED: list[tuple[str, Any, str]] = [
    ("state/0/index", beyond, "other selected entries of '0.weight'"),
    (
        "state/0/index",
        lambda index: index[:-1],
        r"'index' of '0.weight' is torch.int32 \[95\] in the state, expected torch.int32 \[96\]",
    ),
    (
        "state/0/index",
        lambda index: index.long(),
        r"'index' of '0.weight' is torch.int64 \[96\] in the state, expected torch.int32",
    ),
    ("state/0/index", [1, 2], "'index' of '0.weight' is list in the state, expected"),
    ("group/step", torch.tensor(-1), r"the step of group 0 is tensor\(-1\), expected an int64 tensor"),
    ("group/step", torch.tensor(1.5), "expected an int64 tensor"),
    ("group/step", 3, "expected an int64 tensor"),
    ("group/lr", -1.0, "lr is -1.0, expected 0 or more, at most"),
    ("group/keep", 2.0, "keep is 2.0"),
    ("group/lr", float("inf"), "lr is inf, expected 0 or more, at most"),
    ("group/param_names", lambda names: names[:-1], "selected, but not saved, was '2.bias'"),
    ("group/params", lambda params: params[:-1], r"group 0 names \d parameters, but its params are \d"),
    ("group/params", 5, r"group 0 names \d parameters, but its params are int"),
    ("group/identity", {}, "the identity of group 0 has no 'optimizer'"),
    ("group/identity", None, "the identity of group 0 is no dict"),
    ("group/identity/ordinals", [], r"group 0 names \d parameters, but its ordinals are 0"),
    ("group/identity/shapes", lambda shapes: shapes[:-1], r"group 0 names \d parameters, but its shapes are \d"),
]


@pytest.mark.parametrize(("path", "value", "message"), FORGED)
def test_a_forged_state_is_refused(kind, path, value, message, same_bits) -> None:
    model, optimizer = run(kind)
    state = copy.deepcopy(optimizer.state_dict())
    change(path, value)(state)
    before = bits(model, optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert all(map(same_bits, bits(model, optimizer), before))


def test_own_state_of_another_size_dtype_or_kind_is_refused(kind) -> None:
    _, optimizer = run(kind)
    for number, name in enumerate(kind.state):
        state = copy.deepcopy(optimizer.state_dict())
        wider = torch.cat([state["state"][0][name]] * 2)
        for values in (wider, wider[:95], wider[:96].double()):
            change(f"state/0/{name}", values)(state)
            with pytest.raises(ValueError, match=rf"'{name}' of '0.weight' is .* in the state, expected"):
                optimizer.load_state_dict(state)
        if number:  # AdamW's belong together
            del state["state"][0][name]
            with pytest.raises(ValueError, match=f"differs in '{name}': this optimiser needs one"):
                optimizer.load_state_dict(state)
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["odd"] = torch.zeros(96)
    with pytest.raises(ValueError, match="differs in 'odd': this optimiser has none"):
        optimizer.load_state_dict(state)


def test_negative_counts_of_updates_are_refused() -> None:
    model = network()
    optimizer = SparseAdamW(model.named_parameters(), selected(model))
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["updates"] -= 1
    with pytest.raises(ValueError, match=r"'updates' of '0.weight' has a negative count"):
        optimizer.load_state_dict(state)


def test_parameters_and_groups_are_matched_by_name(kind, same_bits) -> None:
    models = [network(), network()]
    named = [list(model.named_parameters()) for model in models]
    first = kind.sparse(
        [{"params": named[0][:2], "lr": 0.1}, {"params": named[0][2:], "lr": 0.2}], selected(models[0]), keep=0.5
    )
    train(models[0], first, range(3))
    models[1].load_state_dict(models[0].state_dict())
    turned = [{"params": named[1][2:][::-1]}, {"params": named[1][:2][::-1]}]
    second = kind.sparse(turned, selected(models[0]))
    second.load_state_dict(first.state_dict())
    assert [group["lr"] for group in second.param_groups] == [0.2, 0.1]
    for model, optimizer in zip(models, (first, second), strict=True):
        train(model, optimizer, range(3, 6))
    assert_same(*models, same_bits)
    second.load_state_dict(second.state_dict())


def test_other_groups_are_refused(kind) -> None:
    model = network()
    named = list(model.named_parameters())

    def groups(*cuts: int) -> Any:
        bounds = [0, *cuts, len(named)]
        return kind.sparse([{"params": named[a:b]} for a, b in itertools.pairwise(bounds)], selected(model))

    with pytest.raises(ValueError, match="the state has 2 parameter groups, this optimiser 1"):
        groups().load_state_dict(groups(2).state_dict())
    with pytest.raises(ValueError, match=r"other parameter groups: group 0 here is '0.weight' and 2 more"):
        groups(3).load_state_dict(groups(2).state_dict())


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flat"])
def test_torch_s_distributed_state_dicts_are_loaded(kind, flatten, same_bits) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    (model, first), (other, second) = run(kind), run(kind, lr=0.3)
    state = copy.deepcopy(get_optimizer_state_dict(model, first, options=options))
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, second, state, options=options)
    for m, optimizer in ((model, first), (other, second)):
        train(m, optimizer, range(2, 5))
    assert_same(model, other, same_bits)


@pytest.mark.parametrize("shrink", [lambda p: p.data[:1], lambda p: torch.cat([p.data, p.data])])
def test_a_parameter_that_got_another_size_is_refused_by_name_at_the_next_step(kind, shrink) -> None:
    model, optimizer = run(kind)
    masked = MaskedGradient(model.named_parameters(), selected(model))
    weight = model[2].weight
    weight.data = shrink(weight)
    give_gradients(model, 0)
    before = model[0].weight.detach().clone()
    expected = rf"'2.weight' has {weight.numel()} entries, but was selected with 240; select anew"
    for step in (optimizer.step, masked.apply_):
        with pytest.raises(RuntimeError, match=expected):
            step()
    assert torch.equal(before, model[0].weight)
    assert optimizer.steps == 2
    assert masked.steps == 0


MASKED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "saved with seed 7, but this one has 1"),
    ({"keep": 0.2}, r"saved with keep 0.5, but this one has 0.2"),
    ({"selection": other_entries()}, "other selected entries of '0.weight'"),
    ({"selection": fewer()}, "saved, but not selected, was '2.bias' and 1 more"),
    ({"selection": reordered()}, "ordinal 0, but selected with 5"),
]


@pytest.mark.parametrize(("options", "message"), MASKED)
def test_a_mask_s_state_of_other_draws_is_refused_with_the_difference(options: dict[str, Any], message: str) -> None:
    model = network()
    given: dict[str, Any] = {"selection": selected(model), "keep": 0.5, "seed": 7}
    saved = MaskedGradient(model.named_parameters(), **given, step=5)
    other = MaskedGradient(model.named_parameters(), **{**given, **options})
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(saved.state_dict())
    assert other.steps == 0
    again = MaskedGradient(model.named_parameters(), **given)
    again.load_state_dict(saved.state_dict())
    assert again.steps == 5
    with pytest.raises(ValueError, match=re.escape("this is not the state of a MaskedGradient: it has no 'seed'")):
        again.load_state_dict({"step": 3})
    for selection in (None, {}, {**saved.state_dict()["selection"], "index": 3}):
        with pytest.raises(ValueError, match="this is not the state of a selection"):
            again.load_state_dict({**saved.state_dict(), "selection": selection})
    with pytest.raises(ValueError, match="step is -3"):
        again.load_state_dict({**saved.state_dict(), "step": -3})
