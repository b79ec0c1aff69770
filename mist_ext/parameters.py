"""Parameters with their names: checked where they enter the library, and named in its errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

EXPECTED = "parameters must be given with their names, as model.named_parameters() gives them"


def named_pairs(given: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return (name, parameter) pairs as a list, each parameter once.

    Raises
    ------
    TypeError
        For anything but pairs, such as ``model.parameters()`` or a model.
    ValueError
        For a name that is given twice, or a parameter under two names.
    """
    if isinstance(given, Tensor | nn.Module):
        raise TypeError(f"{EXPECTED}; this is a {type(given).__name__}")
    pairs = list(given)
    names: set[str] = set()
    first: dict[int, str] = {}
    for pair in pairs:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Tensor)
        ):
            raise TypeError(f"{EXPECTED}; one of these is a {type(pair).__name__}")
        name, parameter = pair
        if name in names:
            raise ValueError(f"{name!r} is given twice; give every parameter a name of its own")
        if (other := first.setdefault(id(parameter), name)) != name:
            raise ValueError(
                f"{other!r} and {name!r} are the same parameter (tied weights); give it under one name, as "
                "model.named_parameters() does unless remove_duplicate is False"
            )
        names.add(name)
    return pairs


def consecutive_parts(
    named_parameters: Iterable[tuple[str, nn.Parameter]], count: int
) -> list[list[tuple[str, nn.Parameter]]]:
    """Cut parameters, in their order, into at most ``count`` parts of about as many entries; none is empty."""
    pairs = list(named_parameters)
    total = sum(p.numel() for _, p in pairs)
    parts: list[list[tuple[str, nn.Parameter]]] = [[] for _ in range(count)]
    before = 0
    for name, parameter in pairs:
        parts[min(before * count // max(total, 1), count - 1)].append((name, parameter))
        before += parameter.numel()
    return [part for part in parts if part]


def pattern(option: str, expression: str) -> re.Pattern[str]:
    """Return a compiled regular expression; ValueError with the option's name if it is invalid."""
    try:
        return re.compile(expression)
    except (re.error, TypeError) as error:
        raise ValueError(f"{option} is {expression!r}, which is no regular expression: {error}") from None


def dense(name: str, gradient: Tensor) -> Tensor:
    """Return a gradient as a contiguous tensor; RuntimeError with the parameter's name if it is a sparse one."""
    if gradient.layout is not torch.strided:
        raise RuntimeError(
            f"the gradient of {name!r} is a sparse tensor, expected a dense one; make its layer with sparse=False"
        )
    return gradient if gradient.is_contiguous() else gradient.contiguous()


def with_names(error: Exception, names: list[str]) -> str:
    """Return an op's message with the parameters' names added to positions such as ``grad[3]``."""

    def name(match: re.Match[str]) -> str:
        position = int(match[2])
        return f"{match[0]} ({names[position]!r})" if position < len(names) else match[0]

    return re.sub(
        r"\b(score|k|param|grad|index|momentum_buffer|exp_avg|exp_avg_sq|updates|master|scale_code|frozen|first|ordinal|code"
        r"|value|expected|then_index|then_value|then_expected)\[(\d+)\]",
        name,
        str(error),
    )
