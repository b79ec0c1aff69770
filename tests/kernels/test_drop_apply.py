"""drop_apply_sgd_ and drop_apply_adamw_: kept entries take a step; the others are neither read nor written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import ops, reference

CPU = torch.device("cpu")
LISTS = ("param", "grad", "index", "master", "scale_code")
TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()

Options = dict[str, Any]
State = dict[str, np.ndarray]


def sgd_step(o: Options, state: State, g: np.ndarray, value: np.ndarray) -> tuple[State, np.ndarray]:
    """The kept entries' new state and values in numpy, one rounding an operation."""
    lr, momentum, decay = (np.float32(o[k]) for k in ("lr", "momentum", "weight_decay"))
    g = g + decay * value
    g = momentum * state.get("momentum_buffer", np.zeros_like(g)) + g
    return {"momentum_buffer": g}, value - lr * g


def adamw_step(o: Options, state: State, g: np.ndarray, value: np.ndarray) -> tuple[State, np.ndarray]:
    """The same of AdamW."""
    lr, beta1, beta2, eps, decay = (np.float32(o[k]) for k in ("lr", "beta1", "beta2", "eps", "weight_decay"))
    c1, c2 = np.asarray(o["correction"], np.float32)
    count = state["updates"] + np.int32(1)
    n = np.minimum(count, len(c1) - 1)
    average = beta1 * state["exp_avg"] + np.float32(1 - o["beta1"]) * g
    square = beta2 * state["exp_avg_sq"] + np.float32(1 - o["beta2"]) * (g * g)
    value = value * (np.float32(1) - lr * decay) - lr * (average / c1[n] / (np.sqrt(square) / c2[n] + eps))
    return {"exp_avg": average, "exp_avg_sq": square, "updates": count}, value


def correction(beta1: float, beta2: float, columns: int) -> list[list[float]]:
    return [[1 - beta1**n for n in range(columns)], [(1 - beta2**n) ** 0.5 for n in range(columns)]]


@dataclass(frozen=True)
class Rule:
    """An op, the dtypes of its state, its options, and its step of the kept entries."""

    op: str
    state: dict[str, torch.dtype]
    options: Options
    step: Callable[[Options, State, np.ndarray, np.ndarray], tuple[State, np.ndarray]]

    def drawn_state(self, size: int, drawing: torch.Generator) -> dict[str, Tensor]:
        """As it may be after some steps: counts on both sides of the table's last column, squares from 0 on."""
        drawn = {kind: torch.randn(size, generator=drawing) for kind in self.state}
        if "updates" in drawn:
            drawn["updates"] = torch.randint(0, 10, (size,), generator=drawing, dtype=torch.int32)
            drawn["exp_avg_sq"] = drawn["exp_avg_sq"].clamp(min=0)
        return drawn


SHARED: Options = {"lr": 0.03, "weight_decay": 5e-4, "keep": 0.1, "seed": 1993, "step": 7}
ADAMW: Options = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "correction": correction(0.9, 0.95, 7)}
SGD_RULE = Rule("drop_apply_sgd_", {"momentum_buffer": torch.float32}, SHARED | {"momentum": 0.9}, sgd_step)
ADAMW_RULE = Rule(
    "drop_apply_adamw_",
    {"exp_avg": torch.float32, "exp_avg_sq": torch.float32, "updates": torch.int32},
    SHARED | ADAMW,
    adamw_step,
)
RULES = {"sgd": SGD_RULE, "adamw": ADAMW_RULE}


@pytest.fixture(params=RULES.values(), ids=RULES, scope="module")
def rule(request: pytest.FixtureRequest) -> Rule:
    return request.param


@dataclass
class Problem:
    """An op's arguments, on the CPU; `state` holds a list for each kind, or none where the op is given an empty one."""

    rule: Rule
    options: Options
    param: list[Tensor] = field(default_factory=list)
    grad: list[Tensor] = field(default_factory=list)
    index: list[Tensor | None] = field(default_factory=list)
    master: list[Tensor] = field(default_factory=list)
    scale_code: list[Tensor | None] = field(default_factory=list)
    state: dict[str, list[Tensor]] = field(default_factory=dict)
    table: Tensor | None = TABLE

    def __post_init__(self) -> None:
        self.options = self.rule.options | self.options

    def copied(self, copy: Callable[[Tensor], Tensor] = Tensor.clone) -> Problem:
        def each(tensors: list) -> list:
            return [None if t is None else copy(t) for t in tensors]

        state = {kind: each(tensors) for kind, tensors in self.state.items()}
        return replace(self, **{name: each(getattr(self, name)) for name in LISTS}, state=state)

    def run(self, module: Any, device: torch.device = CPU, place: Callable[..., Tensor] = Tensor.to) -> Problem:
        """A copy of the problem after the step."""
        after = self.copied(lambda t: place(t.clone(), device))
        values = {k: v for k, v in self.options.items() if k != "keep"}
        for name in ("lr", "found_inf", "grad_scale", "correction", "step"):
            if values.get(name) is not None:
                dtype = torch.int64 if name == "step" else torch.float32
                values[name] = torch.tensor(values[name], dtype=dtype, device=device)
        getattr(module, self.rule.op)(
            **{name: getattr(after, name) for name in LISTS},
            **{kind: after.state.get(kind, []) for kind in self.rule.state},
            **{"found_inf": None, "grad_scale": None, **values},
            table=None if self.table is None else self.table.to(device),
            ordinal=[5 * t for t in range(len(self.param))],
            threshold=ops.keep_threshold(self.options["keep"]),
        )
        return after

    def kept(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """The kept positions of a tensor in its selection, and in itself."""
        o, index = self.options, self.index[t]
        selected = self.param[t].numel() if index is None else index.numel()
        mask = reference.keep_mask(o["seed"], 5 * t, o["step"], selected, ops.keep_threshold(o["keep"]))
        j = mask.numpy().nonzero()[0]
        return j, j if index is None else index.numpy()[j]

    def expected(self) -> Problem:
        """The same step in numpy."""
        after, o = self.copied(), self.options
        for t, param in enumerate([] if o.get("found_inf") else after.param):
            j, at = self.kept(t)
            g = self.grad[t].flatten().float().numpy()[at] / np.float32(o.get("grad_scale") or 1)
            if self.scale_code and (code := self.scale_code[t]) is not None:
                assert self.table is not None
                g = g * self.table.numpy()[code.numpy()[j]]
            compact = {kind: tensors[t].numpy() for kind, tensors in after.state.items()}
            if param.dtype != torch.float32:
                compact["master"] = after.master[t].numpy()
            value = compact["master"][j] if "master" in compact else param.flatten().numpy()[at]
            new, value = self.rule.step(o, {kind: values[j] for kind, values in compact.items()}, g, value)
            for kind, values in compact.items():
                values[j] = value if kind == "master" else new[kind]
            param.view(-1)[torch.from_numpy(at).long()] = torch.from_numpy(value).to(param.dtype)
        return after


# The kernels' words of 64 entries, half words of look-ahead and pieces of 8192.
SIZES = [0, 1, 8, 31, 32, 33, 63, 64, 65, 97, 2049, 8191, 8192, 8193, 33000]


def problem(rule: Rule, dtypes: list[torch.dtype], **options: Any) -> Problem:
    """Tensors around the kernels' sizes, selected whole, by half, by a twentieth and not at all."""
    drawing = torch.Generator().manual_seed(3)
    made = Problem(rule, options, state={kind: [] for kind in rule.state})
    for t, (size, share) in enumerate((s, share) for s in SIZES for share in (None, 0.0, 0.05, 0.5, 1.0)):
        dtype = dtypes[t % len(dtypes)]
        param, grad = (torch.randn(size, generator=drawing).to(dtype) for _ in range(2))
        chosen = None if share is None else torch.randperm(size, generator=drawing)[: round(share * size)]
        index = None if chosen is None else chosen.sort().values.int()
        values = param if index is None else param[index.long()]
        selected = len(values)
        made.param.append(param)
        made.grad.append(grad)
        made.index.append(index)
        for kind, tensor in rule.drawn_state(selected, drawing).items():
            made.state[kind].append(tensor)
        exact = values.float() + 1e-5 * torch.randn(selected, generator=drawing)
        made.master.append(torch.empty(0) if dtype == torch.float32 else exact)
        codes = torch.randint(0, 256, (selected,), generator=drawing, dtype=torch.uint8)
        made.scale_code.append(codes if t % 3 else None)
    if dtypes == [torch.float32]:
        made.master = []
    return made


def assert_same(ours: Problem, theirs: Problem, same_bits: Any, but: tuple[str, ...] = ()) -> None:
    """Every list has the same bits: what is to change has changed, and what is only read has not."""
    for kind in {*LISTS, *ours.state} - {*but}:
        both = (p.state[kind] if kind in p.state else getattr(p, kind) for p in (ours, theirs))
        for a, b in zip(*both, strict=True):
            assert (a is None and b is None) or same_bits(a, b), kind


def assert_as_expected(given_: Problem, device: torch.device, same_bits: Any, place: Any = Tensor.to) -> None:
    expected = given_.expected()
    assert_same(given_.run(ops, device, place), expected, same_bits)
    assert_same(given_.run(reference), expected, same_bits)


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
