"""drop_apply_sgd_: kept entries take an SGD step; the others are neither read nor written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext import ops, reference

CPU = torch.device("cpu")
LISTS = ("param", "grad", "index", "momentum_buffer", "master", "scale_code")
WRITTEN = ("param", "momentum_buffer", "master")
TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()
DEFAULTS: dict[str, Any] = {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4, "keep": 0.1, "seed": 1993, "step": 7}


@dataclass
class Problem:
    """The op's arguments, on the CPU."""

    param: list[Tensor]
    grad: list[Tensor]
    index: list[Tensor | None]
    momentum_buffer: list[Tensor]
    master: list[Tensor]
    scale_code: list[Tensor | None]
    options: dict[str, Any]
    table: Tensor | None = TABLE

    def run(self, op: Any, device: torch.device = CPU, place: Any = Tensor.to) -> Problem:
        """A copy of the problem after the step."""
        after = replace(
            self, **{k: [None if t is None else place(t.clone(), device) for t in getattr(self, k)] for k in LISTS}
        )
        o = {**DEFAULTS, **self.options}
        ordinal = [5 * t for t in range(len(self.param))]

        def scalar(name: str, dtype: torch.dtype = torch.float32) -> Tensor | None:
            return None if o.get(name) is None else torch.tensor(o[name], dtype=dtype, device=device)

        op(
            *(getattr(after, k) for k in LISTS),
            None if self.table is None else self.table.to(device),
            ordinal,
            **{name: o[name] for name in ("momentum", "weight_decay", "seed")},
            **{name: scalar(name) for name in ("lr", "found_inf", "grad_scale")},
            threshold=ops.keep_threshold(o["keep"]),
            step=scalar("step", torch.int64),
        )
        return after

    def kept(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """The kept positions of a tensor in its selection, and in itself."""
        o = {**DEFAULTS, **self.options}
        index = self.index[t]
        selected = self.param[t].numel() if index is None else index.numel()
        mask = reference.keep_mask(o["seed"], 5 * t, o["step"], selected, ops.keep_threshold(o["keep"]))
        j = mask.numpy().nonzero()[0]
        return j, j if index is None else index.numpy()[j]

    def expected(self) -> Problem:
        """The same step in numpy, one rounding an operation."""
        after = replace(self, **{k: [t.clone() for t in getattr(self, k)] for k in WRITTEN})
        o = {**DEFAULTS, **self.options}
        lr, momentum, decay = (np.float32(o[k]) for k in ("lr", "momentum", "weight_decay"))
        for t, param in enumerate(after.param):
            if o.get("found_inf"):
                break
            j, at = self.kept(t)
            g = self.grad[t].flatten().float().numpy()[at] / np.float32(o.get("grad_scale") or 1)
            if self.scale_code[t] is not None:
                g = g * self.table.numpy()[self.scale_code[t].numpy()[j]]
            wide = param.dtype != torch.float32
            value = after.master[t].numpy()[j] if wide else param.flatten().numpy()[at]
            g = g + decay * value
            buffer = after.momentum_buffer[t].numpy() if after.momentum_buffer else np.zeros(0x10000, np.float32)
            buffer[j] = g = momentum * buffer[j] + g
            value = value - lr * g
            if wide:
                after.master[t].numpy()[j] = value
            param.view(-1)[torch.from_numpy(at).long()] = torch.from_numpy(value).to(param.dtype)
        return after


SIZES = [0, 1, 7, 8, 9, 100, 2047, 2048, 2049, 4097, 33000]


def problem(dtypes: list[torch.dtype], **options: Any) -> Problem:
    """Tensors around the kernels' piece sizes, selected whole, by half, by a twentieth and not at all."""
    drawing = torch.Generator().manual_seed(3)
    made = Problem([], [], [], [], [], [], options)
    for t, (size, share) in enumerate((s, share) for s in SIZES for share in (None, 0.0, 0.05, 0.5, 1.0)):
        dtype = dtypes[t % len(dtypes)]
        param, grad = (torch.randn(size, generator=drawing).to(dtype) for _ in range(2))
        chosen = None if share is None else torch.randperm(size, generator=drawing)[: round(share * size)]
        index = None if chosen is None else chosen.sort().values.int()
        selected = size if index is None else len(index)
        values = param if index is None else param[index.long()]
        made.param.append(param)
        made.grad.append(grad)
        made.index.append(index)
        made.momentum_buffer.append(torch.randn(selected, generator=drawing))
        exact = values.float() + 1e-5 * torch.randn(selected, generator=drawing)
        made.master.append(torch.empty(0) if dtype == torch.float32 else exact)
        codes = torch.randint(0, 256, (selected,), generator=drawing, dtype=torch.uint8)
        made.scale_code.append(codes if t % 3 else None)
    if dtypes == [torch.float32]:
        made.master = []
    return made


def assert_same(ours: Problem, theirs: Problem, same_bits: Any) -> None:
    for kind in WRITTEN:
        for a, b in zip(getattr(ours, kind), getattr(theirs, kind), strict=True):
            assert same_bits(a, b), kind


OPTIONS: dict[str, dict[str, Any]] = {
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
def test_kept_entries_take_an_sgd_step(device, dtype, options, same_bits, surrounded) -> None:
    given_ = problem([dtype], **options)
    expected = given_.expected()
    assert_same(given_.run(ops.drop_apply_sgd_, device, surrounded), expected, same_bits)
    assert_same(given_.run(reference.drop_apply_sgd_), expected, same_bits)


def test_dtypes_may_be_mixed(device, same_bits) -> None:
    given_ = problem([torch.float32, torch.bfloat16, torch.float16])
    assert_same(given_.run(ops.drop_apply_sgd_, device), given_.expected(), same_bits)
    assert_same(given_.run(reference.drop_apply_sgd_), given_.expected(), same_bits)


@pytest.mark.parametrize("buffers", [True, False], ids=["buffers_given", "no_buffers"])
def test_without_momentum_no_buffer_is_needed(device, dtype, buffers, same_bits) -> None:
    given_ = problem([dtype], momentum=0.0, keep=0.5)
    if not buffers:
        given_.momentum_buffer = []
    assert_same(given_.run(ops.drop_apply_sgd_, device), given_.expected(), same_bits)
    assert_same(given_.run(reference.drop_apply_sgd_), given_.expected(), same_bits)


def test_the_number_of_threads_does_not_matter(threads, same_bits) -> None:
    given_ = problem([torch.float32, torch.bfloat16])
    assert_same(given_.run(ops.drop_apply_sgd_), given_.expected(), same_bits)


def test_dropped_entries_keep_their_bits_and_kept_ones_change(device, dtype) -> None:
    before = problem([dtype], keep=0.3, lr=1.0)
    after = before.run(ops.drop_apply_sgd_, device)
    for t, (old, new) in enumerate(zip(before.param, after.param, strict=True)):
        j, at = before.kept(t)
        changed = (old != new.cpu()).nonzero().flatten().tolist()
        assert set(changed) <= set(at.tolist())
        assert len(changed) >= 0.9 * len(at)  # but for gradients that are scaled to almost nothing
        moved = (before.momentum_buffer[t] != after.momentum_buffer[t].cpu()).nonzero().flatten().tolist()
        assert moved == j.tolist()


def test_gradients_of_dropped_entries_are_not_read(device, dtype, same_bits) -> None:
    before = problem([dtype])
    poisoned = replace(before, grad=[torch.full_like(g, float("nan")) for g in before.grad])
    for t, gradient in enumerate(poisoned.grad):
        at = torch.from_numpy(before.kept(t)[1]).long()
        gradient[at] = before.grad[t][at]
    assert_same(poisoned.run(ops.drop_apply_sgd_, device), before.expected(), same_bits)


def test_other_arguments_are_not_written(device, dtype, same_bits) -> None:
    before = problem([dtype])
    after = before.run(ops.drop_apply_sgd_, device)
    for kind in ("grad", "index", "scale_code"):
        for a, b in zip(getattr(before, kind), getattr(after, kind), strict=True):
            assert (a is None and b is None) or same_bits(a, b)


def test_no_codes_need_no_table(device, same_bits) -> None:
    given_ = problem([torch.float32])
    given_ = replace(given_, scale_code=[None] * len(given_.param), table=None)
    assert_same(given_.run(ops.drop_apply_sgd_, device), given_.expected(), same_bits)


def test_shapes_of_several_dimensions_are_flattened(device, same_bits) -> None:
    index = torch.tensor([0, 7, 19, 59], dtype=torch.int32)
    given_ = Problem(
        [torch.randn(3, 4, 5)], [torch.randn(3, 4, 5)], [index], [torch.zeros(4)], [], [None], {"keep": 1.0}
    )
    after = given_.run(ops.drop_apply_sgd_, device)
    assert_same(after, given_.expected(), same_bits)
    assert (after.param[0].cpu() != given_.param[0]).flatten().nonzero().flatten().tolist() == index.tolist()


numbers = st.integers(-999, 999).map(lambda n: n / 64) | st.sampled_from([0.0, -0.0, 6e-8, -6e-5, 65504.0, -4e4])


@given(
    rows=st.lists(st.tuples(numbers, numbers, numbers, numbers, st.booleans()), min_size=1, max_size=40),
    whole=st.booleans(),
    scaled=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "lr": st.sampled_from([0.0, 1e-4, 0.1, 8.0]),
            "momentum": st.sampled_from([0.0, 0.5, 0.9]),
            "weight_decay": st.sampled_from([0.0, 0.25, 5e-4]),
            "keep": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
            "grad_scale": st.sampled_from([None, 1.0, 3.0, 65536.0]),
        }
    ),
)
def test_any_values(device, dtype, same_bits, rows, whole, scaled, options) -> None:
    *columns, chosen = zip(*rows, strict=True)
    param, grad, buffer, master = (torch.tensor(column) for column in columns)
    index = None if whole else torch.tensor(chosen).nonzero().flatten().int()
    selected = len(rows) if index is None else len(index)
    code = torch.arange(selected, dtype=torch.uint8) if scaled else None
    masters = [] if dtype == torch.float32 else [master[:selected]]
    given_ = Problem([param.to(dtype)], [grad.to(dtype)], [index], [buffer[:selected]], masters, [code], options)
    assert_same(given_.run(ops.drop_apply_sgd_, device), given_.expected(), same_bits)
    assert_same(given_.run(reference.drop_apply_sgd_), given_.expected(), same_bits)


def test_a_master_gathers_what_16_bits_would_round_away(device) -> None:
    """A hundred steps, each far below half a unit in the last place of the parameter."""
    for dtype in (torch.bfloat16, torch.float16):
        param, master = torch.ones(1, dtype=dtype, device=device), torch.ones(1, device=device)
        for step in range(100):
            ops.drop_apply_sgd_(
                [param], [torch.ones_like(param)], [None], [], [master], [None], None, [0],
                lr=torch.tensor(1e-4, device=device), momentum=0.0, weight_decay=0.0, threshold=65536, seed=0,
                step=torch.tensor(step, device=device),
            )  # fmt: skip
        assert master.item() == pytest.approx(0.99, abs=1e-5)
        assert param.item() == master.to(dtype).item() < 1


def test_no_tensors_are_no_work() -> None:
    ops.drop_apply_sgd_(
        [], [], [], [], [], [], None, [],
        lr=torch.tensor(0.1), momentum=0.9, weight_decay=0.0, threshold=1, seed=0, step=torch.tensor(0),
    )  # fmt: skip
