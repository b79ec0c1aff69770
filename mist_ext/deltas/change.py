"""The change of one tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.deltas.tensors import DTYPES, bits
from mist_ext.indices import checked_index
from mist_ext.kernels.checker import MOST_ENTRIES


@dataclass(eq=False)
class Change:
    """What becomes of one tensor.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor.
    dtype : torch.dtype
        Of the tensor.
    positions : Tensor or None
        int32 ``[k]``, the ascending flat positions of the entries that change; None where every entry is stored.
    old : Tensor or None
        The values before, bit for bit, of the tensor's dtype: ``[k]``, or of its shape where all are stored. None in a
        forward-only delta.
    new : Tensor
        The values after, like ``old``.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    positions: Tensor | None
    old: Tensor | None
    new: Tensor

    @property
    def numel(self) -> int:
        """The number of the tensor's entries."""
        return math.prod(self.shape)

    @property
    def entries(self) -> int:
        """The number of entries that are stored."""
        return self.new.numel()

    @property
    def nbytes(self) -> int:
        """The bytes of positions and values in memory."""
        return sum(t.numel() * t.element_size() for t in (self.positions, self.old, self.new) if t is not None)

    def check(self, name: str) -> None:
        """Raise ValueError, with the tensor's name, unless sizes, dtypes and positions belong together."""
        if self.dtype not in DTYPES.values():
            raise ValueError(f"{name!r} has dtype {self.dtype}, expected one of {', '.join(DTYPES)}")
        if self.numel > MOST_ENTRIES:
            raise ValueError(f"{name!r} has {self.numel} entries, expected at most {MOST_ENTRIES}")
        expected = self.shape if self.positions is None else (self.positions.numel(),)
        for kind, values in (("old", self.old), ("new", self.new)):
            if values is not None and (values.dtype, tuple(values.shape)) != (self.dtype, expected):
                there = f"{values.dtype} {list(values.shape)}"
                raise ValueError(f"the {kind} values of {name!r} are {there}, expected {self.dtype} {list(expected)}")
        if self.positions is not None:
            if self.positions.dtype != torch.int32 or self.positions.dim() != 1:
                there = f"{self.positions.dtype} {list(self.positions.shape)}"
                raise ValueError(f"the positions of {name!r} are {there}, expected torch.int32 [k]")
            checked_index(name, self.positions, self.numel)

    def to(self, device: torch.device | str) -> Change:
        """Return the same change with its tensors on a device."""
        positions = None if self.positions is None else self.positions.to(device)
        old = None if self.old is None else self.old.to(device)
        return Change(self.shape, self.dtype, positions, old, self.new.to(device))

    def same(self, other: Change) -> bool:
        """Return whether another change is the same, bit for bit."""
        ours, theirs = (
            [None if t is None else bits(t).cpu() for t in (one.positions, one.old, one.new)] for one in (self, other)
        )
        return (self.shape, self.dtype) == (other.shape, other.dtype) and all(
            (a is None) == (b is None) and (a is None or b is None or torch.equal(a, b))
            for a, b in zip(ours, theirs, strict=True)
        )


def change_between(before: Tensor, after: Tensor, forward_only: bool) -> Change | None:
    """Return the change from one tensor to another of its shape and dtype, on the CPU; None where no bit differs.

    All entries are stored where positions would make the file larger.
    """
    then, now = bits(before.to(after.device)), bits(after)
    return change_of(tuple(after.shape), after.dtype, None, then, now, forward_only)


def change_of(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    index: Tensor | None,
    then: Tensor | None,
    now: Tensor,
    forward_only: bool,
) -> Change | None:
    """Return a change, on the CPU, of bits at some positions; None where none differs.

    Parameters
    ----------
    shape, dtype
        Of the tensor.
    index : Tensor or None
        int32, the ascending positions of the bits; None for all.
    then, now : Tensor
        The bits before and after; where those before are not known, all are taken to differ.
    forward_only : bool
        Leave out the values before.
    """
    differs = torch.arange(len(now), device=now.device) if then is None else (then != now).nonzero().flatten()
    if not len(differs):
        return None
    width = dtype.itemsize * (1 if forward_only else 2)
    if index is None and len(differs) * (width + 1) >= len(now) * width:
        old, new = then, now
        positions = None
    else:
        positions = (differs.int() if index is None else index.to(now.device)[differs]).cpu()
        old, new = None if then is None else then[differs], now[differs]
    stored = shape if positions is None else (len(differs),)
    values = [None if given is None else given.cpu().clone().view(dtype).view(stored) for given in (old, new)]
    assert values[1] is not None
    return Change(shape, dtype, positions, None if forward_only else values[0], values[1])
