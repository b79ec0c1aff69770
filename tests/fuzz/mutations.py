"""Damage for files, as a function of a key: of bytes, of JSON and YAML, and of safetensors' headers."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import yaml

DEEP = 5000
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 1e308, -1e308, 2**63, 10**30, 2**31, float("nan"), float("inf")),
    *("", "x", "é\x00\x1b[31m", "x" * 100_000, "../../x", "/dev/zero", "vit_nano"),
    *([], {}, [[[[[[[[[[0]]]]]]]]]], [0] * 1000, {"": None}, {"name": 5}),
)
NUMBERS = (b"-1", b"1e308", b"1" * 400, b"9" * 19, b"NaN", b"-Infinity", b"0.5", b"00")


def of_bytes(draw: random.Random, content: bytes) -> bytes:
    """Flip, cut, repeat, remove, insert or overwrite."""
    data = bytearray(content)
    if not data:
        return b"\x00"
    begin = draw.randrange(len(data))
    length = min(draw.choice((1, 8, 64, 4096)), len(data) - begin)
    kind = draw.randrange(7)
    if kind == 0:
        for _ in range(draw.choice((1, 1, 8, 64))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[begin:]
    elif kind == 2:
        data[begin:begin] = data[begin : begin + length] * draw.choice((1, 2, 50))
    elif kind == 3:
        del data[begin : begin + length]
    elif kind == 4:
        data[begin:begin] = draw.randbytes(length)
    elif kind == 5:  # a length, as it may stand in a header
        place = draw.choice((0, begin, draw.randrange(min(len(data), 200))))
        data[place : place + 8] = struct.pack("<Q", draw.choice((0, 1, 2**31, 2**32 - 1, 2**40, 2**63, len(data))))
    else:
        digits = [place for place in range(min(len(data), 20_000)) if chr(data[place]).isdigit()]
        place = draw.choice(digits or [0])
        data[place : place + 1] = draw.choice(NUMBERS)
    return bytes(data)


def of_tree(draw: random.Random, tree: Any) -> Any:
    """Change one to three places of nested dicts and lists."""
    for _ in range(draw.choice((1, 1, 1, 3))):
        places = _places(tree)
        if not places:
            return copy.deepcopy(draw.choice(VALUES))
        holder, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(("later", "", "schema", "x" * 1000))] = holder.pop(key)
        elif kind == 1:
            holder.insert(key, holder[key])
        elif kind == 2:
            holder[key] = copy.deepcopy(draw.choice(places)[0])
        else:
            holder[key] = copy.deepcopy(draw.choice(VALUES))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in it, as what holds it and its key."""
    found, holders = [], [tree]
    while holders:
        holder = holders.pop()
        pairs = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in list(pairs):
            found.append((holder, key))
            holders.append(value)
    return found


def of_json(draw: random.Random, content: bytes) -> bytes:
    """Damage a value, the nesting, or the text."""
    kind = draw.randrange(10)
    if kind == 0:
        return of_bytes(draw, content)
    text = json.dumps(of_tree(draw, json.loads(content)))
    if kind == 1:  # too deep for a recursive reader, or nearly
        depth = draw.choice((50, 200, 480, 960, DEEP))
        opening = draw.choice(('["list",[', "[", '{"a":'))
        closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
        text = text.replace("null", opening * depth + "0" + closing * depth, 1)
    return text.encode()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


def of_yaml(draw: random.Random, content: bytes) -> bytes:
    """Damage a value, the nesting, or the text; or add aliases."""
    kind = draw.randrange(10)
    if kind == 0:
        return of_bytes(draw, content)
    if kind == 1:
        return draw.choice((BOMB.encode() + content, content + BOMB.encode(), b"&a [*a]", b"[" * DEEP, b"? " * DEEP))
    return yaml.safe_dump(of_tree(draw, yaml.safe_load(content))).encode()


def of_safetensors(draw: random.Random, content: bytes) -> bytes:
    """Damage the header's JSON, its length, or the bytes."""
    if draw.randrange(3) == 0:
        return of_bytes(draw, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = of_json(draw, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


Mutation = Callable[[random.Random, bytes], bytes]
