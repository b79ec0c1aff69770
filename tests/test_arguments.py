"""Every op refuses arguments that do not belong together, names the one that is wrong, and changes nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from mist_ext import compiled, ops, reference

Arguments = dict[str, Any]
DROP_APPLY = ("drop_apply_sgd_", "drop_apply_adamw_")
PACKED = ("drop_apply_sgd_, packed", "drop_apply_adamw_, packed")
OPS = ("accumulate_", "select", *DROP_APPLY, "mask_", *PACKED, "pack_", "places")


def arguments(op: str, device: torch.device) -> Arguments:
    """A call that is right: a float32 matrix selected in part, and a bfloat16 vector selected whole."""
    if op == "accumulate_":
        made: Arguments = {
            "score": [torch.rand(4, 6), torch.rand(10)],
            "grad": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "frozen": [torch.tensor([3, 0, 0], dtype=torch.uint8), None],
            "scale": 0.5,
        }
    elif op == "select":
        made = {"score": [torch.rand(4, 6), torch.rand(10)], "k": [5, 3]}
    elif op == "places":
        return {"count": [4, 10], "first": [3, 2045], "ordinal": [0, 1], "threshold": 40000, "seed": 5, "step": 3}
    else:
        places = reference.places([4, 10], [3, 2045], [0, 1], 40000, 5, 3)
        every = {
            "param": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "grad": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "index": [torch.tensor([0, 3, 9, 23], dtype=torch.int32), None],
            "momentum_buffer": [torch.rand(4), torch.rand(10)],
            "exp_avg": [torch.rand(4), torch.rand(10)],
            "exp_avg_sq": [torch.rand(4), torch.rand(10)],
            "updates": [torch.ones(4, dtype=torch.int32), torch.ones(10, dtype=torch.int32)],
            "master": [torch.empty(0), torch.rand(10)],
            "scale_code": [torch.tensor([0, 1, 2, 255], dtype=torch.uint8), None],
            "table": torch.rand(256),
            "ordinal": [0, 1],
            "lr": torch.tensor(0.1),
            "momentum": 0.9,
            "beta1": 0.9,
            "beta2": 0.99,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "correction": torch.rand(2, 5),
            "threshold": 40000,
            "seed": 5,
            "step": torch.tensor(3),
            "found_inf": torch.tensor(0.0),
            "grad_scale": torch.tensor(2.0),
            "first": [3, 2045],
            "packed": torch.randn(int(places[-1])),
            "places": places,
        }
        made = {name: every[name] for name in inspect.signature(function(reference, op)).parameters}
        if op in PACKED:
            made["grad"] = []
        elif op in DROP_APPLY:
            made |= {"packed": None, "places": None}
    return {name: moved(value, device) for name, value in made.items()}


def function(module: Any, op: str) -> Any:
    """The op of a table's entry, which may have a remark behind a comma."""
    return getattr(module, op.partition(",")[0])


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


def tensors(made: Arguments) -> Iterator[Tensor]:
    for value in made.values():
        yield from (t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Tensor))


def item(name: str, number: int | None, change: Callable[[Tensor], Tensor]) -> Callable[[Arguments], None]:
    """Changes one tensor of a list, or the one tensor of that name."""

    def apply(made: Arguments) -> None:
        if number is None:
            made[name] = change(made[name])
        else:
            made[name][number] = change(made[name][number])

    return apply


def put(name: str, value: Any) -> Callable[[Arguments], None]:
    """Replaces an argument."""
    return lambda made: made.update({name: value})


def shorten(name: str) -> Callable[[Arguments], None]:
    return lambda made: made[name].pop()


def alias(name: str, number: int, other: str, other_number: int) -> Callable[[Arguments], None]:
    return lambda made: made[name].__setitem__(number, made[other][other_number])


def reinterpreted(name: str, number: int, other: str, other_number: int) -> Callable[[Arguments], None]:
    """The memory of another argument, seen as this one's dtype."""

    def apply(made: Arguments) -> None:
        made[name][number] = made[other][other_number].view(made[name][number].dtype)

    return apply


def strided(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2).view(-1, 2)[:, 0].view(tensor.shape)


def transposed(tensor: Tensor) -> Tensor:
    return tensor.t().contiguous().t()


def overlap_grad_with_param(made: Arguments) -> None:
    memory = torch.zeros(40, device=made["param"][0].device)
    made["param"][0], made["grad"][0] = memory[:24].view(4, 6), memory[16:].view(4, 6)


# What is done to a right call, and what the error must say.
WRONG: dict[str, list[tuple[Callable[[Arguments], Any], str]]] = {
    "accumulate_": [
        (shorten("grad"), r"grad has 1 tensors"),
        (shorten("frozen"), r"frozen has 1 tensors"),
        (put("grad", []), r"2 and 0 tensors"),
        (put("score", []), r"0 and 2 tensors"),
        (item("grad", 0, lambda t: t[:3]), r"grad\[0\] has shape \[3, 6\].*score\[0\] has \[4, 6\]"),
        (item("grad", 1, lambda t: t.view(2, 5)), r"grad\[1\] has shape \[2, 5\].*score\[1\] has \[10\]"),
        (item("score", 1, Tensor.double), r"score\[1\] has dtype \S*float64, expected \S*float32"),
        (item("score", 1, Tensor.bfloat16), r"score\[1\] has dtype \S*bfloat16, expected \S*float32"),
        (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
        (item("grad", 0, Tensor.int), r"grad\[0\] has dtype \S*int32"),
        (item("score", 0, transposed), r"score\[0\] is not contiguous"),
        (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
        (item("frozen", 0, strided), r"frozen\[0\] is not contiguous"),
        (item("frozen", 0, lambda t: t[:2]), r"frozen\[0\] has 2 entries, expected 3"),
        (item("frozen", 0, Tensor.int), r"frozen\[0\] has dtype \S*int32, expected \S*uint8"),
        (item("grad", 1, lambda t: t.to("meta")), r"grad\[1\] is on \S*meta"),
        (alias("grad", 0, "score", 0), r"share memory"),
    ],
    "select": [
        (shorten("k"), r"k has 1 "),
        (put("k", [25, 3]), r"k\[0\] is 25, expected 0 to 24"),
        (put("k", [5, -1]), r"k\[1\] is -1, expected 0 to 10"),
        (item("score", 1, Tensor.double), r"score\[1\] has dtype \S*float64, expected \S*float32"),
        (item("score", 1, Tensor.half), r"score\[1\] has dtype \S*float16, expected \S*float32"),
        (item("score", 0, transposed), r"score\[0\] is not contiguous"),
        (item("score", 1, lambda t: t.to("meta")), r"score\[1\] is on \S*meta"),
        (item("score", 1, lambda t: t / torch.arange(10, device=t.device).sub(4) * 0), r"score\[1\] is NaN at entry 4"),
    ],
    "drop_apply_sgd_": [],
    "drop_apply_adamw_": [
        (alias("exp_avg", 1, "exp_avg_sq", 1), r"exp_avg\S*\[1\] share memory"),
        (alias("updates", 0, "index", 0), r"share memory"),
        (item("correction", None, Tensor.double), r"correction has dtype \S*float64, expected \S*float32"),
        (item("correction", None, Tensor.int), r"correction has dtype \S*int32, expected \S*float32"),
        (item("correction", None, lambda t: t[:1]), r"correction has shape \[1, 5\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[0]), r"correction has shape \[5\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[:, :0]), r"correction has shape \[2, 0\], expected \[2, n\]"),
        (item("correction", None, lambda t: t.view(5, 2)), r"correction has shape \[5, 2\], expected \[2, n\]"),
        (item("correction", None, lambda t: t[None]), r"correction has shape \[1, 2, 5\], expected \[2, n\]"),
        (item("correction", None, transposed), r"correction is not contiguous"),
        (item("correction", None, lambda t: t.to("meta")), r"correction is on \S*meta"),
    ],
    "mask_": [
        (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
        (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
        (alias("grad", 1, "grad", 0), r"grad\[[01]\] share memory"),
    ],
}
STATE = {
    "drop_apply_sgd_": {"momentum_buffer": "float32"},
    "drop_apply_adamw_": {"exp_avg": "float32", "exp_avg_sq": "float32", "updates": "int32"},
}
for op, state in STATE.items():
    WRONG[f"{op}, packed"] = [
        (put("places", None), r"packed is given, but places is None; give both or neither"),
        (put("packed", None), r"places is given, but packed is None|2 and 0 tensors"),
        (put("grad", [torch.randn(4, 6)]), r"packed is given, but grad has 1 tensors; give an empty list"),
    ]
    for kind, dtype in state.items():
        WRONG[op] += [
            (put(kind, []), rf"{kind} has 0 tensors"),
            (shorten(kind), rf"{kind} has 1 tensors"),
            (item(kind, 1, strided), rf"{kind}\[1\] is not contiguous"),
            (item(kind, 0, lambda t: t[:3]), rf"{kind}\[0\] has 3 entries, expected 4"),
            (item(kind, 1, lambda t: t.repeat(2)), rf"{kind}\[1\] has 20 entries, expected 10"),
            (item(kind, 1, Tensor.bfloat16), rf"{kind}\[1\] has dtype \S*bfloat16, expected \S*{dtype}"),
            (item(kind, 0, Tensor.long), rf"{kind}\[0\] has dtype \S*int64, expected \S*{dtype}"),
            (item(kind, 0, lambda t: t.to("meta")), rf"{kind}\[0\] is on \S*meta"),
            (reinterpreted(kind, 1, "master", 1), r"share memory"),
        ]
    WRONG[op] += [
        (put("param", []), r"0 and 2 tensors"),
        (put("grad", []), r"2 and 0 tensors"),
        (shorten("grad"), r"grad has 1 tensors"),
        (shorten("master"), r"master has 1 tensors"),
        (put("master", []), r"param\[1\] has dtype \S*bfloat16.*master is empty"),
        (item("grad", 0, lambda t: t.view(6, 4)), r"grad\[0\] has shape \[6, 4\].*param\[0\] has \[4, 6\]"),
        (item("grad", 0, Tensor.bfloat16), r"grad\[0\] has dtype \S*bfloat16.*param\[0\] has \S*float32"),
        (item("grad", 1, Tensor.float), r"grad\[1\] has dtype \S*float32.*param\[1\] has \S*bfloat16"),
        (item("param", 0, Tensor.double), r"param\[0\] has dtype \S*float64"),
        (item("param", 0, transposed), r"param\[0\] is not contiguous"),
        (item("master", 0, lambda t: torch.zeros(4, device=t.device)), r"master\[0\] has 4 entries, expected 0"),
        (item("master", 1, lambda t: t[:9]), r"master\[1\] has 9 entries, expected 10"),
        (item("master", 1, Tensor.bfloat16), r"master\[1\] has dtype \S*bfloat16"),
        (put("lr", torch.tensor(0.1, dtype=torch.float64)), r"lr has dtype \S*float64, expected \S*float32"),
        (put("lr", torch.tensor([0.1, 0.2])), r"lr has 2 entries, expected 1"),
        (put("found_inf", torch.zeros(2)), r"found_inf has 2 entries, expected 1"),
        (put("grad_scale", torch.tensor(2)), r"grad_scale has dtype \S*int64"),
        (alias("grad", 0, "param", 0), r"share memory"),
        (overlap_grad_with_param, r"share memory"),
    ]
for op in (*PACKED, "pack_"):
    WRONG.setdefault(op, []).extend(
        [
            (item("packed", None, Tensor.double), r"packed has dtype \S*float64, expected \S*float32 or \S*bfloat16"),
            (item("packed", None, Tensor.half), r"packed has dtype \S*float16, expected \S*float32 or \S*bfloat16"),
            (item("packed", None, strided), r"packed is not contiguous"),
            (item("places", None, Tensor.int), r"places has dtype \S*int32, expected \S*int64"),
            (item("places", None, lambda t: t[1:]), r"places has 3 entries, expected 4, one for each piece of 2048"),
            (item("places", None, lambda t: t.to("meta")), r"places is on \S*meta"),
            (put("first", [3, 0]), r"places has 4 entries, expected 3"),
        ]
    )
WRONG["drop_apply_sgd_, packed"].append(
    (lambda made: made.update(packed=made["momentum_buffer"][1]), r"packed.* share memory|share memory")
)
WRONG["pack_"] += [
    (shorten("index"), r"index has 1 tensors, but grad has 2"),
    (shorten("grad"), r"index has 2 tensors, but grad has 1"),
    (shorten("first"), r"first has 1 tensors, but grad has 2"),
    (shorten("ordinal"), r"ordinal has 1 tensors, but grad has 2"),
    (put("first", [-1, 2045]), r"first\[0\] is -1, expected 0 to 2147483644"),
    (put("ordinal", [0, -1]), r"ordinal\[1\] is -1"),
    (put("threshold", 65537), r"threshold is 65537, expected 0"),
    (put("step", torch.tensor(3.0)), r"step has dtype \S*float32, expected \S*int64"),
    (item("grad", 0, transposed), r"grad\[0\] is not contiguous"),
    (item("grad", 0, Tensor.double), r"grad\[0\] has dtype \S*float64"),
    (item("grad", 1, lambda t: t.to("meta")), r"grad\[1\] is on \S*meta"),
    (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
    (lambda made: made.update(packed=made["grad"][0].view(-1)), r"share memory"),
]
WRONG["places"] = [
    (shorten("first"), r"first has 1 entries, but count has 2"),
    (shorten("ordinal"), r"ordinal has 1 entries, but count has 2"),
    (put("count", [4, -1]), r"count\[1\] is -1, expected 0 to 2147483648"),
    (put("count", [2**31 + 1, 1]), r"count\[0\] is 2147483649, expected 0 to 2147483648"),
    (put("first", [-1, 0]), r"first\[0\] is -1, expected 0 to 2147483644"),
    (put("first", [0, 2**31 - 9]), r"first\[1\] is 2147483639, expected 0 to 2147483638"),
    (put("ordinal", [2**32, 1]), r"ordinal\[0\] is 4294967296"),
    (put("threshold", -1), r"threshold is -1, expected 0"),
]
ENTRIES = torch.arange(25, dtype=torch.int32)
for op in (*DROP_APPLY, "mask_"):
    WRONG[op] += [
        (shorten("index"), r"index has 1 tensors"),
        (shorten("scale_code"), r"scale_code has 1 tensors"),
        (shorten("ordinal"), r"ordinal has 1 "),
        (shorten("first"), r"first has 1 "),
        (put("first", [-1, 0]), r"first\[0\] is -1, expected 0 to 2147483644"),
        (put("first", [0, 2**31 - 9]), r"first\[1\] is 2147483639, expected 0 to 2147483638, so that its 10 entries"),
        (put("ordinal", [0, -1]), r"ordinal\[1\] is -1"),
        (put("ordinal", [2**32, 1]), r"ordinal\[0\] is 4294967296"),
        (item("index", 0, Tensor.long), r"index\[0\] has dtype \S*int64, expected \S*int32"),
        (item("index", 0, strided), r"index\[0\] is not contiguous"),
        (item("index", 0, lambda t: ENTRIES.to(t.device)), r"index\[0\] has 25 entries, more than"),
        (item("index", 0, lambda t: t.to("meta")), r"index\[0\] is on \S*meta"),
        (item("scale_code", 0, lambda t: t[:3]), r"scale_code\[0\] has 3 entries, expected 4"),
        (item("scale_code", 0, Tensor.int), r"scale_code\[0\] has dtype \S*int32, expected \S*uint8"),
        (put("table", None), r"table.* is None"),
        (put("table", torch.rand(255)), r"table has 255 entries, expected 256"),
        (put("table", torch.rand(256).double()), r"table has dtype \S*float64, expected \S*float32"),
        (put("threshold", -1), r"threshold is -1, expected 0"),
        (put("threshold", 65537), r"threshold is 65537, expected 0"),
        (put("step", torch.tensor(3.0)), r"step has dtype \S*float32, expected \S*int64"),
        (put("step", torch.tensor([3, 4])), r"step has 2 entries, expected 1"),
    ]
CASES = [
    pytest.param(implementation, op, spoil, message, id=f"{implementation.__name__.split('.')[-1]}-{op}-{message}")
    for op, cases in WRONG.items()
    for spoil, message in cases
    for implementation in (ops, reference)
    if implementation is ops
    or " and " not in message  # ops alone chooses an implementation, by the first list's device
]


@pytest.mark.parametrize(("implementation", "op", "spoil", "message"), CASES)
def test_a_wrong_argument_is_named_and_nothing_is_changed(
    device: torch.device, implementation: ModuleType, op: str, spoil: Callable, message: str, same_bits: Callable
) -> None:
    made = arguments(op, device)
    spoil(made)
    made = {k: v.to(device) if isinstance(v, Tensor) and not v.is_meta else v for k, v in made.items()}
    readable = [t for t in tensors(made) if not t.is_meta]
    before = [t.clone() for t in readable]
    with pytest.raises(RuntimeError, match=message):
        function(implementation, op)(**made)
    assert all(same_bits(old, new) for old, new in zip(before, readable, strict=True))


@pytest.mark.parametrize("op", OPS)
def test_the_right_call_that_the_wrong_ones_start_from(device: torch.device, op: str) -> None:
    made = arguments(op, device)
    before = [t.clone() for t in tensors(made)]
    result = function(ops, op)(**made)
    changed = any(not torch.equal(old, new) for old, new in zip(before, tensors(made), strict=True))
    assert changed == (op not in ("select", "places"))
    assert op != "select" or [len(index) for index in result] == [5, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_a_tensor_on_another_device_is_named(op: str, same_bits: Callable) -> None:
    for name, value in arguments(op, torch.device("cuda")).items():
        made = arguments(op, torch.device("cuda"))
        if isinstance(value, Tensor):
            made[name], wrong = value.cpu(), name
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            number = 1 if isinstance(value[1], Tensor) else 0
            made[name][number], wrong = value[number].cpu(), rf"{name}\[{number}\]"
        else:
            continue
        before = [t.clone() for t in tensors(made)]
        with pytest.raises(RuntimeError, match=rf"{wrong} is on cpu"):
            function(ops, op)(**made)
        assert all(same_bits(old, new) for old, new in zip(before, tensors(made), strict=True))


@pytest.mark.skipif(compiled.C is None, reason="needs compiled kernels")
@pytest.mark.parametrize("op", OPS)
def test_schemas_and_fakes_hold_what_the_kernels_do(device: torch.device, op: str) -> None:
    torch.library.opcheck(function(torch.ops.mist_ext, op).default, tuple(arguments(op, device).values()))
