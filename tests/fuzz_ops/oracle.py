"""What each op makes of its arguments, in NumPy alone and with no code of the package: the bits that it must give.

Each function returns the arrays that its op writes, by name, or what it returns, as ``result``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from arrays import Array, Call

Outcome = dict[str, Any]
WORD = np.uint64(0xFFFFFFFF)
PIECE = 2048


def philox(seed: int, ordinal: int, step: int, groups: np.ndarray) -> np.ndarray:
    """Ten rounds of Philox4x32 for each group: eight 16-bit draws, ``[groups, 8]``."""
    c = [groups.astype(np.uint64), *(np.full(len(groups), w, np.uint64) for w in (ordinal, step % 2**32, step >> 32))]
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high0, high1 = p0 >> np.uint64(32), p1 >> np.uint64(32)
        c = [high1 ^ c[1] ^ np.uint64(k0), p1 & WORD, high0 ^ c[3] ^ np.uint64(k1), p0 & WORD]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    halves = [half for word in c for half in (word & np.uint64(0xFFFF), word >> np.uint64(16))]
    return np.stack(halves, axis=1)


def kept(seed: int, ordinal: int, step: int, n: int, threshold: int, first: int) -> np.ndarray:
    """Which of the entries [first, first + n) of a list are kept: bool."""
    begin = first // 8
    draws = philox(seed, ordinal, step, np.arange(begin, (first + n + 7) // 8)).reshape(-1)
    return draws[first - 8 * begin :][:n] < threshold


def keep_mask(call: Call) -> Outcome:
    return {"result": Array.of("bool", kept(**call))}


def accumulate_(call: Call) -> Outcome:
    scale, made = np.float32(call["scale"]), []
    for score, grad, frozen in zip(call["score"], call["grad"], call["frozen"], strict=True):
        old, g = score.flat(), grad.flat()
        new = old + scale * (g * g)
        if frozen is not None:
            bits = np.unpackbits(frozen.flat(), bitorder="little")[: len(old)].astype(bool)
            new = np.where(bits, old, new)
        made.append(score.like(new))
    return {"score": made}


def select(call: Call) -> Outcome:
    chosen = [
        np.sort(np.argsort(-score.flat(), kind="stable")[:k]) for score, k in zip(call["score"], call["k"], strict=True)
    ]
    return {"result": [Array.of("int32", places) for places in chosen]}


def drawn(call: Call, t: int, count: int) -> np.ndarray:
    """The kept entries of one tensor's selection."""
    first = call["first"][t] if call["first"] else 0
    step = call["step"] if isinstance(call["step"], int) else int(call["step"].flat()[0])
    return np.flatnonzero(kept(call["seed"], call["ordinal"][t], step, count, call["threshold"], first))


def chosen(call: Call, t: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The kept entries of one tensor's selection, and their places in the tensor."""
    index = call["index"][t]
    j = drawn(call, t, size if index is None else len(index))
    return j, j if index is None else index.flat()[j]


def factors(call: Call, t: int, j: np.ndarray) -> np.ndarray | None:
    """What kept gradients are multiplied by."""
    code = call["scale_code"][t] if call["scale_code"] else None
    return None if code is None else call["table"].flat()[code.flat()[j]]


def places(call: Call) -> Outcome:
    ends, total = [0], 0
    for t, count in enumerate(call["count"]):
        first = call["first"][t] if call["first"] else 0
        piece = (first + drawn(call, t, count)) // PIECE
        for number in range(first // PIECE, (first + count - 1) // PIECE + 1) if count else []:
            total += int((piece == number).sum())
            ends.append(total)
    return {"result": Array.of("int64", ends)}


def mask_(call: Call) -> Outcome:
    made = []
    for t, grad in enumerate(call["grad"]):
        j, at = chosen(call, t, len(grad))
        raw = np.zeros(len(grad), grad.values.dtype)
        raw[at] = grad.values.reshape(-1)[at]
        if (factor := factors(call, t, j)) is not None:
            raw[at] = Array.of(grad.kind, grad.flat()[at] * factor).values
        made.append(Array(grad.kind, raw.reshape(grad.values.shape)))
    return {"grad": made}


def pack_(call: Call) -> Outcome:
    taken = [grad.flat()[chosen(call, t, len(grad))[1]] for t, grad in enumerate(call["grad"])]
    return {"packed": call["packed"].like(np.concatenate([np.zeros(0, np.float32), *taken]))}


def write_values_(call: Call) -> Outcome:
    made = list(call["param"])
    for prefix in ("", "then_"):
        for t, value in enumerate(call.get(f"{prefix}value", [])):
            index = call[f"{prefix}index"][t]
            made[t] = replaced(made[t], np.arange(len(made[t])) if index is None else index.values, value)
    return {"param": made}


def encode_gaps(call: Call) -> Outcome:
    codes = []
    for index in call["index"]:
        gaps = [b - a - 1 for a, b in pairwise([-1, *index.values.tolist()])]
        wide = [byte for gap in gaps if gap >= 255 for byte in gap.to_bytes(4, "little")]
        codes.append(Array.of("uint8", [min(gap, 255) for gap in gaps] + wide))
    return {"result": codes}


def decode_gaps(call: Call) -> Outcome:
    made = []
    for code, count in zip(call["code"], call["count"], strict=True):
        narrow, wide = code.values[:count].tolist(), code.values[count:].tobytes()
        long = (int.from_bytes(wide[at : at + 4], "little") for at in range(0, len(wide), 4))
        gaps = [next(long) if gap == 255 else gap for gap in narrow]
        made.append(Array.of("int32", np.cumsum(np.array(gaps, np.int64) + 1) - 1))
    return {"result": made}


State = dict[str, np.ndarray]


def sgd(call: Call, state: State, g: np.ndarray, value: np.ndarray) -> tuple[State, np.ndarray]:
    """The new state and values of kept entries, one rounding an operation."""
    momentum, decay = np.float32(call["momentum"]), np.float32(call["weight_decay"])
    new = momentum * state.get("momentum_buffer", np.zeros_like(g)) + (g + decay * value)
    return {"momentum_buffer": new}, value - call["lr"].flat()[0] * new


def adamw(call: Call, state: State, g: np.ndarray, value: np.ndarray) -> tuple[State, np.ndarray]:
    """The same of AdamW."""
    lr = call["lr"].flat()[0]
    beta1, beta2, eps, decay = (np.float32(call[name]) for name in ("beta1", "beta2", "eps", "weight_decay"))
    table = call["correction"].values
    count = (state["updates"].astype(np.int64) + 1).astype(np.int32)
    last = table.shape[1] - 1
    n = np.where((count < 0) | (count > last), last, count)
    average = beta1 * state["exp_avg"] + np.float32(1 - call["beta1"]) * g
    square = beta2 * state["exp_avg_sq"] + np.float32(1 - call["beta2"]) * (g * g)
    root = np.sqrt(square) / table[1][n] + eps
    value = value * (np.float32(1) - lr * decay) - lr * (average / table[0][n] / root)
    return {"exp_avg": average, "exp_avg_sq": square, "updates": count}, value


def drop_apply(call: Call, kinds: tuple[str, ...], rule: Callable) -> Outcome:
    written = ["param", "master", *kinds]
    made: Outcome = {name: list(call[name]) for name in written}
    if call["found_inf"] is not None and call["found_inf"].flat()[0] != 0:
        return made
    scale, taken = np.float32(1) if call["grad_scale"] is None else call["grad_scale"].flat()[0], 0
    for t, param in enumerate(call["param"]):
        j, at = chosen(call, t, len(param))
        if call["packed"] is None:
            g = call["grad"][t].flat()[at]
        else:
            g = call["packed"].flat()[taken : taken + len(j)]
            taken += len(j)
        g = g / scale
        if (factor := factors(call, t, j)) is not None:
            g = g * factor
        master = None if param.kind == "float32" else call["master"][t]
        value = param.flat()[at] if master is None else master.flat()[j]
        state = {kind: call[kind][t].flat() for kind in kinds if call[kind]}
        new, value = rule(call, {kind: values[j] for kind, values in state.items()}, g, value)
        for kind, values in state.items():
            made[kind][t] = replaced(call[kind][t], j, Array.of(call[kind][t].kind, new[kind]))
            assert len(values) == len(call[kind][t])
        if master is not None:
            made["master"][t] = replaced(master, j, Array.of("float32", value))
        made["param"][t] = replaced(param, at, Array.of(param.kind, value))
    return made


def replaced(array: Array, at: np.ndarray, values: Array) -> Array:
    """A copy with other values at some places."""
    raw = array.values.reshape(-1).copy()
    raw[at] = values.values.reshape(-1)
    return Array(array.kind, raw.reshape(array.values.shape))


def drop_apply_sgd_(call: Call) -> Outcome:
    return drop_apply(call, ("momentum_buffer",), sgd)


def drop_apply_adamw_(call: Call) -> Outcome:
    return drop_apply(call, ("exp_avg", "exp_avg_sq", "updates"), adamw)
