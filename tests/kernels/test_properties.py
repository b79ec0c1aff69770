"""Random calls of every op, bit for bit what the plain-PyTorch oracle gives, on each instruction set.

A case is one call with up to four tensors of drawn sizes (0, a few, or around the kernels' pieces), shapes, dtypes,
values (zeros of both signs, subnormals, infinities), options, thresholds, seeds, steps and places in a larger list.
Each op, and each update from packed gradients too, gets the profile's 60 examples, the same ones every time; thousands
of other calls are in `test_fuzz_ops.py`. A long run draws 9 * 1,200 = 10,800 others:

    pytest tests/kernels/test_properties.py --hypothesis-profile long
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import compiled, ops, reference

Call = dict[str, Any]
CASES = settings().max_examples  # of each op

INFINITY = float("inf")
SPECIAL = torch.tensor([0.0, -0.0, 1e-45, -1e-40, 6e-8, 65504.0, -7e4, 1e20, -3e38, INFINITY, -INFINITY])
EDGES = [edge + shift for edge in (64, 512, 8192, 32768, 65536, 131072) for shift in (-1, 0, 1)]

sizes = st.lists(st.integers(0, 70) | st.integers(0, 2000) | st.sampled_from(EDGES), min_size=1, max_size=4)
generators = st.integers(0, 2**32).map(lambda seed: torch.Generator().manual_seed(seed))
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
shares = st.sampled_from([0.0, 0.01, 0.3, 1.0])
firsts = st.integers(0, 5000) | st.sampled_from([2047, 2048, 2049, 2**31 - max(EDGES)])  # int32 positions
factors = st.sampled_from([0.0, 1.0]) | st.floats(0, 2)


def values(size: int, drawing: torch.Generator) -> Tensor:
    """Normal numbers, and special ones among them; a matrix where that is possible."""
    special = SPECIAL[torch.randint(len(SPECIAL), (size,), generator=drawing)]
    drawn = torch.randn(size, generator=drawing)
    mixed = torch.where(torch.rand(size, generator=drawing) < 0.05, special, drawn)
    return mixed if size % 3 else mixed.view(3, -1)


def flags(size: int, share: float, drawing: torch.Generator) -> Tensor:
    return torch.rand(size, generator=drawing) < share


@st.composite
def accumulate_calls(draw: Callable) -> Call:
    drawing, sized = draw(generators), draw(sizes)
    return {
        "score": [values(n, drawing).abs() for n in sized],
        "grad": [values(n, drawing).to(draw(dtypes)) for n in sized],
        "frozen": [ops.pack_bits(flags(n, draw(shares), drawing)) if draw(st.booleans()) else None for n in sized],
        "scale": draw(factors),
    }


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as drawn": lambda score: score,
    "constant": lambda score: torch.full_like(score, 0.5),
    "two values": lambda score: (score > 1).float(),
    "some ties": lambda score: (score * 100).round() / 100,
    "many ties": lambda score: score.round(),
    "ascending": lambda score: score.flatten().sort().values.view(score.shape),
    "descending": lambda score: score.flatten().sort(descending=True).values.view(score.shape),
    "periodic": lambda score: score + 3.0 * (torch.arange(score.numel()) % 16 == 5).view(score.shape),
    "close together": lambda score: 1 + score.clamp(-1, 1) * 2**-20,
}


@st.composite
def select_calls(draw: Callable) -> Call:
    drawing, sized = draw(generators), draw(sizes)
    score = [LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](values(n, drawing)) for n in sized]
    for scores in score:
        if scores.numel() and draw(st.integers(0, 9)) == 0:
            scores.view(-1)[torch.randint(scores.numel(), (2,), generator=drawing)] = float("nan")
    return {"score": score, "k": [draw(st.sampled_from([0, min(n, 1), n // 20, n]) | st.integers(0, n)) for n in sized]}


@st.composite
def drawn_calls(draw: Callable) -> Call:
    """What the ops that draw have in common: mask_'s arguments."""
    drawing, sized = draw(generators), draw(sizes)
    grad = [values(n, drawing).to(draw(dtypes)) for n in sized]
    chosen = [flags(n, draw(shares), drawing).nonzero().flatten().int() for n in sized]
    index = [entries if draw(st.booleans()) else None for entries in chosen]
    selected = [n if entries is None else len(entries) for n, entries in zip(sized, index, strict=True)]
    codes = [torch.randint(256, (count,), generator=drawing, dtype=torch.uint8) for count in selected]
    return {
        "grad": grad,
        "index": index,
        "scale_code": [code if draw(st.booleans()) else None for code in codes],
        "table": torch.rand(256, generator=drawing),
        "ordinal": draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(sized), max_size=len(sized))),
        "threshold": draw(st.sampled_from([0, 1, 6554, 65535, 65536]) | st.integers(0, 65536)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "step": torch.tensor(draw(st.integers(0, 2**63 - 1))),
        "first": draw(st.just([]) | st.lists(firsts, min_size=len(sized), max_size=len(sized))),
    }


def selected_counts(call: Call) -> list[int]:
    return [g.numel() if i is None else len(i) for g, i in zip(call["grad"], call["index"], strict=True)]


def places_of(call: Call) -> Call:
    """The arguments of places for a call of another op."""
    shared = {name: call[name] for name in ("first", "ordinal", "threshold", "seed")}
    return {"count": selected_counts(call), **shared, "step": int(call["step"])}


@st.composite
def places_calls(draw: Callable) -> Call:
    return places_of(draw(drawn_calls()))


wires = st.sampled_from([torch.float32, torch.bfloat16])


@st.composite
def pack_calls(draw: Callable) -> Call:
    call = draw(drawn_calls())
    places = reference.places(**places_of(call))
    del call["scale_code"], call["table"]
    return {"packed": torch.full((int(places[-1]),), 7.0).to(draw(wires)), "places": places, **call}


@st.composite
def drop_apply_calls(draw: Callable, adamw: bool) -> Call:
    call, drawing = draw(drawn_calls()), draw(generators)
    grad, selected = call["grad"], selected_counts(call)

    def compact() -> list[Tensor]:
        return [values(count, drawing).flatten() for count in selected]

    scalars = {"lr": draw(factors), "found_inf": draw(st.sampled_from([None, 0.0, 0.0, 1.0]))}
    scalars["grad_scale"] = draw(st.sampled_from([None, 1.0, 3.0, 65536.0]))
    call |= {name: None if value is None else torch.tensor(value) for name, value in scalars.items()}
    call["param"] = [values(g.numel(), drawing).view(g.shape).to(g.dtype) for g in grad]
    wide = [g.dtype == torch.float32 for g in grad]
    masters = [torch.empty(0) if w else master for w, master in zip(wide, compact(), strict=True)]
    call |= {"master": [] if all(wide) else masters, "weight_decay": draw(factors)}
    if not adamw:
        momentum = draw(st.sampled_from([0.0, 0.9]) | factors)
        return call | {"momentum": momentum, "momentum_buffer": compact() if momentum or draw(st.booleans()) else []}
    columns = draw(st.integers(2, 12))
    correction = torch.rand(2, columns, generator=drawing) + 0.01
    counts = [torch.randint(12, (count,), generator=drawing, dtype=torch.int32) for count in selected]
    call |= {"exp_avg": compact(), "exp_avg_sq": [t.abs() for t in compact()], "updates": counts}
    betas = {name: draw(st.sampled_from([0.0, 0.9, 0.999]) | st.floats(0, 1)) for name in ("beta1", "beta2")}
    return call | betas | {"eps": draw(st.sampled_from([0.0, 1e-8]) | factors), "correction": correction}


@st.composite
def packed_calls(draw: Callable, adamw: bool) -> Call:
    """Updates from packed gradients."""
    call, drawing = draw(drop_apply_calls(adamw)), draw(generators)
    places = reference.places(**places_of(call))
    return call | {"grad": [], "packed": values(int(places[-1]), drawing).flatten().to(draw(wires)), "places": places}


CALLS = {
    "accumulate_": accumulate_calls(),
    "select": select_calls(),
    "drop_apply_sgd_": drop_apply_calls(adamw=False),
    "drop_apply_adamw_": drop_apply_calls(adamw=True),
    "mask_": drawn_calls(),
    "places": places_calls(),
    "pack_": pack_calls(),
    "drop_apply_sgd_, packed": packed_calls(adamw=False),
    "drop_apply_adamw_, packed": packed_calls(adamw=True),
}


def outcome(module: Any, op: str, call: Call, device: torch.device) -> list[Tensor] | str:
    """What a call on copies of its arguments returns, what it makes of them, or its error."""

    def copied(value: Any) -> Any:
        if isinstance(value, list):
            return [copied(item) for item in value]
        return value.to(device, copy=True) if isinstance(value, Tensor) else value

    call = {name: copied(value) for name, value in call.items()}
    try:
        made = getattr(module, op)(**call)
    except RuntimeError as error:
        return str(error)
    if isinstance(made, Tensor):
        return [made]
    lists = (value if isinstance(value, list) else [value] for value in call.values())
    return made or [value for values_ in lists for value in values_ if isinstance(value, Tensor)]


def each_instruction_set(device: torch.device) -> Iterator[str]:
    """Those of this machine, in use one after the other."""
    if device.type != "cpu" or compiled.C is None:
        yield device.type
        return
    before = compiled.C.instruction_set()
    try:
        for name in compiled.C.instruction_sets():
            compiled.C.use_instruction_set(name)
            yield name
    finally:
        compiled.C.use_instruction_set(before)


def without_nan(tensor: Tensor) -> Tensor:
    """One NaN for all: its bits mean nothing."""
    return torch.where(tensor.isnan(), float("nan"), tensor) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("op", CALLS)
def test_any_call_gives_the_oracle_s_bits(op: str, device: torch.device, same_bits: Callable) -> None:
    cases, calls = 0, CALLS[op]
    op = op.partition(",")[0]

    @given(call=calls)
    def check(call: Call) -> None:
        nonlocal cases
        cases += 1
        theirs = outcome(reference, op, call, torch.device("cpu"))
        for name in each_instruction_set(device):
            ours = outcome(ops, op, call, device)
            if isinstance(theirs, str):
                assert ours == theirs, name
                continue
            assert not isinstance(ours, str), ours
            for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert same_bits(without_nan(a), without_nan(b)), f"{name}: tensor {number} of the call"

    check()
    assert cases >= CASES
