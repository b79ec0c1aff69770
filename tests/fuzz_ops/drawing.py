"""Right calls of every op, drawn by chance: sizes around the kernels' pieces, all dtypes, special numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
from arrays import Array, Call
from numpy.random import Generator

OPS = (
    *("accumulate_", "select", "drop_apply_sgd_", "drop_apply_adamw_", "mask_", "places", "pack_", "keep_mask"),
    *("drop_apply_sgd_, packed", "drop_apply_adamw_, packed"),
    *("write_values_", "encode_gaps", "decode_gaps"),
)
FLOATING = ("float32", "bfloat16", "float16")
EDGES = [edge + shift for edge in (64, 512, 2048, 8192, 32768) for shift in (-1, 0, 1)]
SPECIAL = np.array([0, -0.0, 1e-45, -1e-40, 6e-8, 65504, -7e4, 1e20, -3e38, np.inf, -np.inf], np.float32)
LONGEST = 2**31


def draw(rng: Generator) -> tuple[str, Call]:
    """One op, with a remark behind a comma where there is one, and its arguments."""
    op = OPS[rng.integers(len(OPS))]
    name, _, packed = op.partition(", ")
    sizes = [size(rng) for _ in range(rng.integers(1, 5))]
    if name == "accumulate_":
        return op, accumulate_call(rng, sizes)
    if name == "select":
        return op, select_call(rng, sizes)
    if name == "keep_mask":
        return op, keep_mask_call(rng, sizes[0])
    if name == "write_values_":
        return op, write_values_call(rng, sizes)
    if name in ("encode_gaps", "decode_gaps"):
        return op, gaps_call(rng, sizes, name == "decode_gaps")
    call = drawn_call(rng, sizes)
    if name == "places":
        return op, places_call(call)
    if name == "mask_":
        return op, call
    places = oracle.places(places_call(call))["result"]
    if name == "pack_":
        del call["scale_code"], call["table"]
        vector = Array.of(pick(rng, FLOATING[:2]), np.full(places.values[-1], 7, np.float32))
        return op, {"packed": vector, "places": places, **call}
    call = drop_apply_call(rng, call, sizes, name == "drop_apply_adamw_")
    if packed:
        vector = Array.of(pick(rng, FLOATING[:2]), numbers(rng, int(places.values[-1])))
        call |= {"grad": [], "packed": vector, "places": places}
    return op, call


def pick(rng: Generator, values: Any) -> Any:
    return values[rng.integers(len(values))]


def size(rng: Generator) -> int:
    return int(pick(rng, [rng.integers(70), rng.integers(70), rng.integers(70), rng.integers(2500), pick(rng, EDGES)]))


def numbers(rng: Generator, n: int, nan: float = 0) -> np.ndarray:
    """Normal numbers, with special ones among them: float32."""
    drawn = rng.standard_normal(n, np.float32)
    drawn = np.where(rng.random(n) < 0.05, SPECIAL[rng.integers(len(SPECIAL), size=n)], drawn)
    return np.where(rng.random(n) < nan, np.float32(np.nan), drawn)


def shaped(rng: Generator, kind: str, values: np.ndarray) -> Array:
    """A vector, or a matrix where that is possible."""
    rows = int(pick(rng, (1, 2, 3)))
    return Array.of(kind, values, (rows, len(values) // rows) if rows > 1 and len(values) % rows == 0 else None)


def factor(rng: Generator) -> float:
    return float(pick(rng, [0.0, 1.0, 2 * rng.random()]))


def accumulate_call(rng: Generator, sizes: list[int]) -> Call:
    score = [shaped(rng, "float32", np.abs(numbers(rng, n))) for n in sizes]
    grad = [Array.of(pick(rng, FLOATING), numbers(rng, len(s), nan=0.01), s.values.shape) for s in score]
    bits = [np.packbits(rng.random(n) < pick(rng, (0.01, 0.5, 1))) for n in sizes]
    frozen = [Array.of("uint8", b) if rng.random() < 0.5 else None for b in bits]
    return {"score": score, "grad": grad, "frozen": frozen, "scale": factor(rng)}


def select_call(rng: Generator, sizes: list[int]) -> Call:
    layouts = [lambda s: s, np.round, lambda s: np.round(s * 100) / 100, np.sort, lambda s: np.full_like(s, 0.5)]
    score = [shaped(rng, "float32", pick(rng, layouts)(numbers(rng, n)).astype(np.float32)) for n in sizes]
    return {"score": score, "k": [int(pick(rng, [0, n, n // 20, rng.integers(n + 1)])) for n in sizes]}


def keep_mask_call(rng: Generator, n: int) -> Call:
    shared = draw_of(rng)
    names = {"seed": shared["seed"], "ordinal": ordinal(rng), "step": int(rng.integers(2**63 - 1)), "n": n}
    return names | {"threshold": shared["threshold"], "first": first(rng, n)}


def ordinal(rng: Generator) -> int:
    return int(pick(rng, [rng.integers(5), rng.integers(2**32)]))


def first(rng: Generator, n: int) -> int:
    return int(pick(rng, [0, rng.integers(5000), 2047, 2048, LONGEST - n]))


def draw_of(rng: Generator) -> Call:
    thresholds = [0, 1, 6554, 65535, 65536, rng.integers(65537)]
    return {"threshold": int(pick(rng, thresholds)), "seed": int(pick(rng, [rng.integers(9), rng.integers(2**63 - 1)]))}


def drawn_call(rng: Generator, sizes: list[int]) -> Call:
    """What the ops that draw have in common: mask_'s arguments."""
    index = []
    for n in sizes:
        some = np.flatnonzero(rng.random(n) < pick(rng, (0, 0.05, 0.5, 1)))
        index.append(Array.of("int32", some) if rng.random() < 0.7 else None)
    counts = [n if i is None else len(i) for n, i in zip(sizes, index, strict=True)]
    codes = [Array.of("uint8", rng.integers(256, size=c)) if rng.random() < 0.5 else None for c in counts]
    scaled = rng.random() < 0.7
    step = int(pick(rng, [rng.integers(100), rng.integers(2**63 - 1)]))
    return {
        "grad": [shaped(rng, pick(rng, FLOATING), numbers(rng, n, nan=0.01)) for n in sizes],
        "index": index,
        "scale_code": codes if scaled else [],
        "table": Array.of("float32", rng.random(256, np.float32)) if scaled or rng.random() < 0.5 else None,
        "ordinal": [ordinal(rng) for _ in sizes],
        "step": Array.of("int64", [step] if rng.random() < 0.5 else step),
        "first": [first(rng, c) for c in counts] if rng.random() < 0.5 else [],
        **draw_of(rng),
    }


def write_values_call(rng: Generator, sizes: list[int]) -> Call:
    """One replacement or two, with what they find or without."""
    param = [drawn_bits(rng, str(pick(rng, ("float32", "bfloat16", "int64", "uint8"))), n) for n in sizes]
    call: Call = {"param": param}
    prefixes, known, now = ("", "then_")[: rng.integers(1, 3)], rng.random() < 0.7, param
    for prefix in prefixes:
        index = [some_positions(rng, n) if rng.random() < 0.8 else None for n in sizes]
        at = [np.arange(n) if i is None else i.values for n, i in zip(sizes, index, strict=True)]
        value = [drawn_bits(rng, p.kind, len(a)) for p, a in zip(param, at, strict=True)]
        found = [Array(p.kind, p.values.reshape(-1)[a]) for p, a in zip(now, at, strict=True)]
        call |= {f"{prefix}index": index, f"{prefix}value": value, f"{prefix}expected": found if known else []}
        now = [oracle.replaced(p, a, v) for p, a, v in zip(now, at, value, strict=True)]
    return call


def drawn_bits(rng: Generator, kind: str, n: int) -> Array:
    """Values of any dtype, and one NaN for all of them."""
    if kind in FLOATING:
        return shaped(rng, kind, numbers(rng, n, nan=0.01))
    return Array.of(kind, rng.integers(256, size=n))


def some_positions(rng: Generator, n: int) -> Array:
    return Array.of("int32", np.flatnonzero(rng.random(n) < pick(rng, (0, 0.001, 0.05, 0.5, 1))))


def gaps_call(rng: Generator, sizes: list[int], decode: bool) -> Call:
    index = [some_positions(rng, n) for n in sizes]
    if not decode:
        return {"index": index}
    code = oracle.encode_gaps({"index": index})["result"]
    return {"code": code, "count": [len(i) for i in index], "size": sizes}


def places_call(call: Call) -> Call:
    """The places of another op's call."""
    count = [len(g) if i is None else len(i) for g, i in zip(call["grad"], call["index"], strict=True)]
    shared = {name: call[name] for name in ("first", "ordinal", "threshold", "seed")}
    return {"count": count, **shared, "step": int(call["step"].flat()[0])}


def drop_apply_call(rng: Generator, call: Call, sizes: list[int], adamw: bool) -> Call:
    grad, counts = call["grad"], places_call(call)["count"]

    def compact(positive: bool = False) -> list[Array]:
        drawn = [numbers(rng, c) for c in counts]
        return [Array.of("float32", np.abs(d) if positive else d) for d in drawn]

    def scalar(values: list) -> Array | None:
        value = pick(rng, values)
        return None if value is None else Array.of("float32", value)

    call |= {"lr": scalar([factor(rng)]), "found_inf": scalar([None, 0.0, 0.0, 1.0])}
    call |= {"grad_scale": scalar([None, 1.0, 3.0, 65536.0]), "weight_decay": factor(rng), "packed": None}
    call["param"] = [Array.of(g.kind, numbers(rng, n), g.values.shape) for g, n in zip(grad, sizes, strict=True)]
    none = Array.of("float32", np.zeros(0))
    masters = [none if g.kind == "float32" else m for g, m in zip(grad, compact(), strict=True)]
    call |= {"master": [] if all(g.kind == "float32" for g in grad) else masters, "places": None}
    if not adamw:
        momentum = factor(rng)
        return call | {"momentum": momentum, "momentum_buffer": compact() if momentum or rng.random() < 0.5 else []}
    updates = [Array.of("int32", rng.choice([0, 1, 5, 11, 2**31 - 2, -5], size=c)) for c in counts]
    betas = {name: float(pick(rng, [0.0, 0.9, 0.999, rng.random()])) for name in ("beta1", "beta2")}
    correction = Array.of("float32", rng.random((2, int(rng.integers(1, 12))), np.float32) + np.float32(0.01))
    state = {"exp_avg": compact(), "exp_avg_sq": compact(positive=True), "updates": updates}
    return call | state | betas | {"eps": float(pick(rng, [0.0, 1e-8, 1.0])), "correction": correction}
