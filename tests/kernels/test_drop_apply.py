"""drop_apply_sgd_ and drop_apply_adamw_: kept entries take a step; the others are neither read nor written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drop_apply_problems import (
    ADAMW_RULE,
    RULES,
    SGD_RULE,
    Options,
    Problem,
    Rule,
    assert_as_expected,
    assert_same,
    correction,
    problem,
)
from hypothesis import given
from hypothesis import strategies as st

from mist_ext.kernels import ops


@pytest.fixture(params=RULES.values(), ids=RULES, scope="module")
def rule(request: pytest.FixtureRequest) -> Rule:
    return request.param


OPTIONS: dict[str, Options] = {
    "usual": {},
    "keep everything": {"keep": 1.0},
    "keep nothing": {"keep": 0.0},
    "no decay": {"weight_decay": 0.0},
    "scaled gradients": {"grad_scale": 3.0},
    "finite": {"found_inf": 0.0, "grad_scale": 1024.0},
    "infinite": {"found_inf": 1.0, "grad_scale": 1024.0},
    "high seed and step": {"seed": 2**63 - 1, "step": 2**40 + 5, "keep": 0.5},
    "lr of one entry": {"lr": [0.5]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_kept_entries_take_a_step(rule, device, dtype, options, same_bits, surrounded) -> None:
    assert_as_expected(problem(rule, [dtype], **options), device, same_bits, surrounded)


def test_dtypes_may_be_mixed(rule, device, same_bits) -> None:
    given_ = problem(rule, [torch.float32, torch.bfloat16, torch.float16])
    assert_as_expected(given_, device, same_bits)


@pytest.mark.parametrize("buffers", [True, False], ids=["buffers_given", "no_buffers"])
def test_without_momentum_no_buffer_is_needed(device, dtype, buffers, same_bits) -> None:
    given_ = problem(SGD_RULE, [dtype], momentum=0.0, keep=0.5)
    if not buffers:
        given_.state = {}
    assert_as_expected(given_, device, same_bits)


ADAMW_OPTIONS: dict[str, Options] = {
    "one column": {"correction": [[0.5], [0.25]]},
    "two columns": {"correction": correction(0.9, 0.95, 2)},
    "more columns than updates": {"correction": correction(0.9, 0.95, 500)},
    "no average": {"beta1": 0.0, "correction": correction(0.0, 0.95, 90)},
    "no averages": {"beta1": 0.0, "beta2": 0.0, "correction": correction(0.0, 0.0, 2)},
    "large eps": {"eps": 10.0},
    "decay alone": {"lr": 0.5, "weight_decay": 2.0},
}


@pytest.mark.parametrize("options", ADAMW_OPTIONS.values(), ids=ADAMW_OPTIONS)
def test_adamw_s_own_options(device, options, same_bits) -> None:
    assert_as_expected(problem(ADAMW_RULE, [torch.float32], **options), device, same_bits)


def test_bias_is_corrected_by_an_entry_s_own_updates_up_to_the_last_column(device) -> None:
    """The first update moves by the learning rate whatever the step; later ones by what the table says."""
    updates = torch.tensor([0, 1, 2, 3, 2**31 - 2], dtype=torch.int32)
    zeros, ones = torch.zeros(5), torch.ones(5)
    state = {"exp_avg": [zeros], "exp_avg_sq": [zeros], "updates": [updates]}
    table = [[0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 1.0, 1.0]]
    options = {"beta1": 0.0, "beta2": 0.0, "eps": 0.0, "weight_decay": 0.0, "correction": table, "keep": 1.0, "lr": 1.0}
    after = Problem(ADAMW_RULE, options, [zeros], [ones], [None], [], [None], state).run(ops, device)
    assert after.param[0].tolist() == [-1, -0.5, -0.25, -0.25, -0.25]
    assert after.state["updates"][0].tolist() == [1, 2, 3, 4, 2**31 - 1]


def test_neither_threads_nor_instruction_sets_matter(rule, threads, instruction_set, same_bits) -> None:
    given_ = problem(rule, [torch.float32, torch.bfloat16, torch.float16], keep=0.3)
    assert_same(given_.run(ops), given_.expected(), same_bits)


def test_dropped_entries_keep_their_bits_and_kept_ones_change(rule, device, dtype) -> None:
    before = problem(rule, [dtype], keep=0.3, lr=1.0)
    after = before.run(ops, device)
    for t, (old, new) in enumerate(zip(before.param, after.param, strict=True)):
        j, at = before.kept(t)
        changed = (old != new.cpu()).nonzero().flatten().tolist()
        assert set(changed) <= set(at.tolist())
        assert len(changed) >= 0.9 * len(at)  # but for gradients that are scaled to almost nothing
        for kind, tensors in before.state.items():
            moved = (tensors[t] != after.state[kind][t].cpu()).nonzero().flatten().tolist()
            assert moved == j.tolist()


def test_nothing_of_a_dropped_entry_is_read(rule, device, dtype, same_bits) -> None:
    """With NaN in its gradient, and codes and counts that lead far outside the tables."""
    before = problem(rule, [dtype])
    poisoned, expected = before.copied(), before.expected()
    for t, gradient in enumerate(poisoned.grad):
        j, at = (torch.from_numpy(places).long() for places in before.kept(t))
        gradient.fill_(float("nan"))[at] = before.grad[t][at]
        for kind, tensors in poisoned.state.items():
            dropped = torch.ones(len(tensors[t]), dtype=torch.bool).index_fill_(0, j, False)
            for tensor in (tensors[t], expected.state[kind][t]):
                tensor[dropped] = -(2**31) if kind == "updates" else float("nan")
    assert_same(poisoned.run(ops, device), expected, same_bits, but=("grad",))


@pytest.mark.parametrize("codes", [[None], []], ids=["None", "empty"])
def test_no_codes_need_no_table(codes, rule, device, same_bits) -> None:
    given_ = problem(rule, [torch.float32])
    none = replace(given_, scale_code=codes * len(given_.param), table=None)
    assert_as_expected(none, device, same_bits)


def test_shapes_of_several_dimensions_are_flattened(rule, device, same_bits) -> None:
    index = torch.tensor([0, 7, 19, 59], dtype=torch.int32)
    state = {kind: [torch.zeros(4, dtype=dtype)] for kind, dtype in rule.state.items()}
    param, grad = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    given_ = Problem(rule, {"keep": 1.0}, [param], [grad], [index], [], [None], state)
    assert_as_expected(given_, device, same_bits)
    after = given_.run(ops, device)
    assert (after.param[0].cpu() != param).flatten().nonzero().flatten().tolist() == index.tolist()


numbers = st.integers(-999, 999).map(lambda n: n / 64) | st.sampled_from([0.0, -0.0, 6e-8, -6e-5, 65504.0, -4e4])


@given(
    rows=st.lists(st.tuples(*[numbers] * 5, st.integers(0, 9), st.booleans()), min_size=1, max_size=40),
    whole=st.booleans(),
    scaled=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "lr": st.sampled_from([0.0, 1e-4, 0.1, 8.0]),
            "weight_decay": st.sampled_from([0.0, 0.25, 5e-4]),
            "keep": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
            "grad_scale": st.sampled_from([None, 1.0, 3.0, 65536.0]),
        }
    ),
    averaging=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_any_values(rule, device, dtype, same_bits, rows, whole, scaled, options, averaging) -> None:
    *columns, counts, chosen = zip(*rows, strict=True)
    param, grad, first, second, master = (torch.tensor(column) for column in columns)
    index = None if whole else torch.tensor(chosen).nonzero().flatten().int()
    selected = len(rows) if index is None else len(index)
    code = torch.arange(selected, dtype=torch.uint8) if scaled else None
    masters = [] if dtype == torch.float32 else [master[:selected]]
    values = {"exp_avg_sq": second.abs(), "updates": torch.tensor(counts, dtype=torch.int32)}
    state = {kind: [values.get(kind, first)[:selected].clone()] for kind in rule.state}
    options |= {"momentum": averaging} if rule is SGD_RULE else {"beta1": averaging}
    given_ = Problem(rule, options, [param.to(dtype)], [grad.to(dtype)], [index], masters, [code], state)
    assert_as_expected(given_, device, same_bits)


def test_a_master_gathers_what_16_bits_would_round_away(rule, device) -> None:
    """A hundred steps, each far below half a unit in the last place of the parameter."""
    for dtype in (torch.bfloat16, torch.float16):
        state = {kind: [torch.zeros(1, dtype=kept)] for kind, kept in rule.state.items()}
        plain = {"lr": 1e-4, "weight_decay": 0.0, "keep": 1.0}
        plain |= {"momentum": 0.0} if rule is SGD_RULE else {"correction": correction(0.9, 0.95, 500)}
        one = torch.ones(1)
        after = Problem(rule, plain, [one.to(dtype)], [one.to(dtype)], [None], [one], [None], state)
        for _ in range(100):
            after = after.run(ops, device)
        assert after.master[0].item() == pytest.approx(0.99, abs=1e-5)
        assert after.param[0].item() == after.master[0].to(dtype).item() < 1


def test_no_tensors_are_no_work(rule) -> None:
    Problem(rule, {}, state={kind: [] for kind in rule.state}, table=None).run(ops)
