"""Arguments of drop_apply_sgd_ and drop_apply_adamw_, and the same step in numpy: the oracle of their tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
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
    """Tensors around the kernels' sizes, selected fully, by half, by a twentieth and not at all."""
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
