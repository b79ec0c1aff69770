"""The order in which tasks bring the classes: the published permutation, or one that is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mist_ext.system.suggest import unknown


def permuted(count: int, seed: int) -> list[int]:
    """Return the published order, a permutation by NumPy's legacy generator; the field uses seed 1993."""
    order: list[int] = np.random.RandomState(seed).permutation(count).tolist()
    return order


def given(order: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the classes' numbers in an order that is given by their names, or by their numbers.

    Raises
    ------
    ValueError
        Unless it is every class once; the message says which is unknown, repeated or missing.
    """
    position = {name: number for number, name in enumerate(names)}
    if not position.keys() & set(order) and all(re.fullmatch("[0-9]{1,9}", each) for each in order):
        order = [names[int(each)] if int(each) < len(names) else each for each in order]
    there = set(order)
    for each in order:
        if each not in position:
            raise unknown("class in class_order", each, names)
    if repeated := [name for name, times in Counter(order).items() if times > 1]:
        raise ValueError(
            f"class_order has {_some(repeated)} more than once, expected each of {len(names)} classes once"
        )
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"class_order lacks {_some(missing)}, expected each of {len(names)} classes once")
    return [position[name] for name in order]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
