"""What can be wrong with a call: each of these makes a right one wrong, if it can, and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from arrays import Call
from drawing import pick
from numpy.random import Generator
from torch import Tensor

WRITTEN = {
    "accumulate_": ("score",),
    "drop_apply_sgd_": ("param", "momentum_buffer", "master"),
    "drop_apply_adamw_": ("param", "exp_avg", "exp_avg_sq", "updates", "master"),
    "mask_": ("grad",),
    "pack_": ("packed",),
    "write_values_": ("param",),
}
# Ranges of numbers, where the upper end does not depend on anything else.
HIGHEST = {"threshold": 65536, "seed": 2**63 - 1, "step": 2**63 - 1, "ordinal": 2**32 - 1, "count": 2**31, "n": 2**31}
OTHER_DTYPES = {
    torch.float32: (torch.float64, torch.int32),
    torch.float16: (torch.float64, torch.int16),
    torch.bfloat16: (torch.float64, torch.int16),
    torch.int32: (torch.int64, torch.float32),
    torch.int64: (torch.int32, torch.float64),
    torch.uint8: (torch.int8, torch.bool, torch.int32),
}

ENDS_ALONE = ("mask_", "pack_", "write_values_")
GAPS = ("encode_gaps", "decode_gaps")

Place = tuple[str, int | None]  # an argument, and the place in it where it is a list


def places_of(call: Call, names: Iterable[str]) -> list[Place]:
    """Where tensors are, among some arguments."""
    found: list[Place] = []
    for name in names:
        value = call.get(name)
        if isinstance(value, list):
            found += [(name, i) for i, item in enumerate(value) if isinstance(item, Tensor)]
        elif isinstance(value, Tensor):
            found.append((name, None))
    return found


def get(call: Call, place: Place) -> Any:
    name, i = place
    return call[name] if i is None else call[name][i]


def put(call: Call, place: Place, value: Any) -> str:
    name, i = place
    if i is None:
        call[name] = value
    else:
        call[name][i] = value
    return name if i is None else f"{name}[{i}]"


def checked(op: str, call: Call) -> list[Place]:
    """Tensors that every call looks at: a table without codes is not, nor are the masters of float32 parameters."""
    unused = set() if any(code is not None for code in call.get("scale_code", [])) else {("table", None)}
    unused |= {("master", i) for i, p in enumerate(call.get("param", [])) if p.dtype == torch.float32}
    return [place for place in places_of(call, call) if place not in unused]


def a_list_of_another_length(rng: Generator, op: str, call: Call) -> str | None:
    lists = [name for name, value in call.items() if isinstance(value, list) and value]
    if not lists or op == "encode_gaps":  # of which any list is right  # such as those of keep_mask
        return None
    name = pick(rng, lists)
    call[name] = call[name][:-1] if rng.random() < 0.5 and len(call[name]) > 1 else [*call[name], call[name][-1]]
    return f"{name} has {len(call[name])} items"


def another_dtype(rng: Generator, op: str, call: Call) -> str | None:
    if not (there := checked(op, call)):
        return None
    place = pick(rng, there)
    tensor = get(call, place)
    return put(call, place, tensor.to(pick(rng, OTHER_DTYPES[tensor.dtype]))) + " has another dtype"


def gaps_between_entries(rng: Generator, op: str, call: Call) -> str | None:
    there = [place for place in checked(op, call) if get(call, place).numel() > 1]
    if not there:
        return None
    place = pick(rng, there)
    tensor = get(call, place)
    apart = tensor.repeat_interleave(2).view(-1, 2)[:, 0].view(tensor.shape)
    return None if apart.is_contiguous() else put(call, place, apart) + " is not contiguous"


def another_size(rng: Generator, op: str, call: Call) -> str | None:
    there = [place for place in checked(op, call) if place[0] != "index"]
    if not there:
        return None
    place = pick(rng, there)
    if op == "select":
        return None
    tensor = get(call, place).flatten()
    if place[0] in ("param", "grad", "score") and (op in ENDS_ALONE or op.endswith("packed")):
        return None  # of these only the ends of an index tell
    return put(call, place, torch.cat([tensor, tensor.new_zeros(1)])) + " is longer"


def a_position_outside(rng: Generator, op: str, call: Call) -> str | None:
    there = [place for place in places_of(call, ["index"]) if get(call, place).numel()]
    if not there or op in GAPS:
        return None
    place = pick(rng, there)
    values = call["param" if "param" in call else "grad"]
    index, n = get(call, place).clone(), values[place[1]].numel()
    if rng.random() < 0.5:
        index[-1] = int(pick(rng, [n, n + 1, 2**31 - 1]))
    else:
        index[0] = int(pick(rng, [-1, -n, -(2**31)])) if n else -1
    return put(call, place, index) + " leads outside"


def an_index_out_of_order(rng: Generator, op: str, call: Call) -> str | None:
    if op not in (
        "mask_",
        "write_values_",
        "encode_gaps",
    ):  # the others rely on what is checked where a selection is made
        return None
    there = [place for place in places_of(call, ["index"]) if get(call, place).numel() > 1]
    if not there:
        return None
    place = pick(rng, there)
    index = get(call, place).clone()
    at = int(rng.integers(len(index) - 1))
    if rng.random() < 0.5:
        index[at] = index[at + 1]
    else:
        index[at : at + 2] = index[at : at + 2].flip(0)
    return put(call, place, index) + " is out of order"


def a_tensor_made_smaller(rng: Generator, op: str, call: Call) -> str | None:
    name = "param" if "param" in call else "grad"
    there = [(name, i) for _, i in places_of(call, ["index"]) if call["index"][i].numel()]
    if not there or op in GAPS:
        return None
    _, i = pick(rng, there)
    last = int(call["index"][i][-1])
    for values in {id(v): v for v in (call.get("param"), call.get("grad")) if v}.values():
        values[i] = values[i].flatten()[:last].clone()
    return f"{name}[{i}] has become smaller"


def shared_memory(rng: Generator, op: str, call: Call) -> str | None:
    if op == "select":
        return None
    written = [p for p in places_of(call, WRITTEN.get(op.partition(",")[0], ())) if get(call, p).numel()]
    others = [p for p in checked(op, call) if get(call, p).numel()]
    if not written or not others:
        return None
    one, other = pick(rng, written), pick(rng, others)
    if one == other:
        return None
    a, b = get(call, one), get(call, other)
    bytes_a, bytes_b = a.numel() * a.element_size(), b.numel() * b.element_size()
    begin = (bytes_b + 7) // 8 * 8
    last = begin + bytes_a - 1  # of a's bytes; b begins at a multiple of 8 at most there, and ends behind a's first one
    lowest = begin - (bytes_b - 1) // 8 * 8
    start = int(rng.integers(lowest // 8, last // 8 + 1)) * 8
    memory = torch.zeros(begin + bytes_a + bytes_b + 16, dtype=torch.uint8)

    def within(tensor: Tensor, at: int, size: int) -> Tensor:
        return memory[at : at + size].view(tensor.dtype).view(tensor.shape)

    held_b = within(b, start, bytes_b).copy_(b)
    held_a = within(a, begin, bytes_a)
    if a.dtype == b.dtype or b.dtype != torch.int32:  # an index that is overwritten may lead outside: as wrong
        held_a.copy_(a)
        held_b.copy_(b)
    return f"{put(call, one, held_a)} shares memory with {put(call, other, held_b)}"


def a_number_out_of_range(rng: Generator, op: str, call: Call) -> str | None:
    names = [name for name in ("threshold", "seed", "step", "ordinal", "first", "count", "k", "n") if name in call]
    if not names:
        return None
    name = pick(rng, names)
    value = call[name]
    beyond = [-1, -(2**63), 2**63, -(2**70), HIGHEST.get(name, 2**63) + 1]
    if name == "step" and isinstance(value, Tensor):
        call[name] = value - value - int(pick(rng, [1, 2**62]))
        return "step is negative"
    if not isinstance(value, list):
        call[name] = pick(rng, beyond)
        return f"{name} is {call[name]}"
    if not value:
        return None
    i = int(rng.integers(len(value)))
    if name == "k":
        beyond.append(call["score"][i].numel() + 1)
    if name == "first":
        beyond.append(2**31 + 1)
    value[i] = pick(rng, beyond)
    return f"{name}[{i}] is {value[i]}"


def not_a_number(rng: Generator, op: str, call: Call) -> str | None:
    if op != "select" or not (there := [p for p in places_of(call, ["score"]) if get(call, p).numel()]):
        return None
    place = pick(rng, there)
    score = get(call, place)
    score.view(-1)[int(rng.integers(score.numel()))] = float("nan")
    return f"{place[0]}[{place[1]}] is NaN somewhere"


def freed_memory(rng: Generator, op: str, call: Call) -> str | None:
    there = [p for p in checked(op, call) if get(call, p).numel()]
    if not there:
        return None
    place = pick(rng, there)
    freed = get(call, place).clone()
    freed.untyped_storage().resize_(0)
    return put(call, place, freed) + " has no memory"


def meta(rng: Generator, op: str, call: Call) -> str | None:
    there = checked(op, call)
    if len(there) < 2:
        return None
    place = pick(rng, there[1:])
    return put(call, place, get(call, place).to("meta")) + " is on meta"


def other_places(rng: Generator, op: str, call: Call) -> str | None:
    if "packed" not in call or call["packed"] is None or call["packed"].numel() == 0:
        return None
    places = call["places"]
    if rng.random() < 0.3:
        call["packed"] = call["packed"][:-1].clone()
        return "packed is shorter than the places say"
    at = int(rng.integers(places.numel()))
    places[at] += int(pick(rng, [1, -1, 2**40, -(2**62)]))
    return f"places[{at}] is wrong"


def what_autograd_records(rng: Generator, op: str, call: Call) -> str | None:
    there = places_of(call, WRITTEN.get(op.partition(",")[0], ()))
    there = [p for p in there if get(call, p).is_floating_point()]
    if not there:
        return None
    place = pick(rng, there)
    tensor = get(call, place)
    if rng.random() < 0.5:
        return put(call, place, tensor.requires_grad_()) + " requires grad"
    first = (place[0], None if place[1] is None else 0)
    with torch.inference_mode():
        return put(call, first, get(call, first).clone()) + " is an inference tensor"


def other_bits(rng: Generator, op: str, call: Call) -> str | None:
    there = [p for p in places_of(call, ["expected", "then_expected"]) if get(call, p).numel()]
    if not there:
        return None
    place = pick(rng, there)
    found = get(call, place).clone()
    found.view(-1).view(torch.uint8)[int(rng.integers(found.numel() * found.element_size()))] ^= 1 << int(
        rng.integers(8)
    )
    return put(call, place, found) + " is not what is there"


def without_a_partner(rng: Generator, op: str, call: Call) -> str | None:
    if any(code is not None for code in call.get("scale_code", [])):
        call["table"] = None
        return "table is None"
    if op.endswith("packed"):
        call["places"] = None
        return "places is None"
    if op == "accumulate_" and call["score"][0].numel():
        call["grad"][0] = call["grad"][0].reshape(1, 1, -1)
        return "grad[0] has another shape"
    return None


WAYS: list[Callable[[Generator, str, Call], str | None]] = [
    a_list_of_another_length,
    another_dtype,
    gaps_between_entries,
    another_size,
    a_position_outside,
    an_index_out_of_order,
    a_tensor_made_smaller,
    shared_memory,
    a_number_out_of_range,
    not_a_number,
    freed_memory,
    meta,
    other_places,
    other_bits,
    what_autograd_records,
    without_a_partner,
]


def spoil(rng: Generator, op: str, call: Call) -> str | None:
    """Make a call wrong in one way, and say which; None where it cannot be made so in any."""
    tried = (WAYS[way](rng, op, call) for way in rng.permutation(len(WAYS)))
    return next((done for done in tried if done), None)
