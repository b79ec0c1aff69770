"""Changes of a right call's arguments that make it a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from right_calls import Arguments
from torch import Tensor

Spoil = Callable[[Arguments], Any]


def item(name: str, number: int | None, change: Callable[[Tensor], Tensor]) -> Spoil:
    """Changes one tensor of a list, or the one tensor of that name."""

    def apply(made: Arguments) -> None:
        if number is None:
            made[name] = change(made[name])
        else:
            made[name][number] = change(made[name][number])

    return apply


def put(name: str, value: Any) -> Spoil:
    """Replaces an argument."""
    return lambda made: made.update({name: value})


def shorten(name: str) -> Spoil:
    return lambda made: made[name].pop()


def alias(name: str, number: int, other: str, other_number: int) -> Spoil:
    return lambda made: made[name].__setitem__(number, made[other][other_number])


def reinterpreted(name: str, number: int, other: str, other_number: int) -> Spoil:
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


def inside(name: str, other: str, number: int | None) -> Spoil:
    """The beginning of another argument's memory, as far as this one needs it."""

    def apply(made: Arguments) -> None:
        tensor, host = made[name], made[other] if number is None else made[other][number]
        memory = torch.zeros(64, dtype=torch.int64, device=tensor.device).view(torch.uint8)
        size = host.numel() * host.element_size()
        around = memory[:size].view(host.dtype).view(host.shape).copy_(host)
        within = memory[: tensor.numel() * tensor.element_size()].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        made[name] = within
        if number is None:
            made[other] = around
        else:
            made[other][number] = around

    return apply


def in_table(kind: str) -> Spoil:
    """The rule's state lies in the table."""
    return lambda made: made[kind].__setitem__(1, made["table"][:10])


def cut(made: Arguments, rows: int) -> None:
    """The first tensor has become smaller since its entries were selected."""
    for name in ("param", "grad"):
        made[name][0] = made[name][0][:rows].clone()
