"""What a task changed in a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import mist_ext
from mist_ext.deltas.change import Change, change_between
from mist_ext.deltas.digests import state_digest
from mist_ext.deltas.tensors import tensors_of
from mist_ext.deltas.writing import Stage, check_like, write

State = nn.Module | Mapping[str, Tensor]


class TaskDelta:
    """The entries that a task changed in a model, with their values after it and, unless forward-only, before it.

    What an `apply_` or `undo_` proves before it changes anything: every tensor of the delta is there with its shape and
    dtype, and each entry that is to change has, bit for bit, the value that the delta knows. Entries elsewhere are not
    looked at; `verify` compares digests of the whole model. A forward-only delta knows no values before, so it compares
    the digest of the whole model each time, and cannot be undone.

    Parameters
    ----------
    changes : mapping of str to Change
        By the tensors' names in the state dict. Either all have old values, or none.
    base_digest : str
        The `state_digest` of the whole model before; "" where it is not known. A forward-only delta needs it.
    result_digest : str
        The same after; "" where it is not known.
    info : mapping, optional
        Whatever JSON can hold: the task, its classes, a configuration. The tool's version is added.

    Raises
    ------
    ValueError
        If a change is not what it says (sizes, dtypes, positions that do not ascend), or the digest is missing.
    """

    def __init__(
        self,
        changes: Mapping[str, Change],
        base_digest: str,
        result_digest: str = "",
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.changes = dict(changes)
        self.base_digest = base_digest
        self.result_digest = result_digest
        self.info: dict[str, Any] = {"mist_ext": mist_ext.__version__, **(info or {})}
        for name, change in self.changes.items():
            change.check(name)
        kinds = {change.old is None for change in self.changes.values()}
        if len(kinds) > 1:
            raise ValueError("some changes have old values and some have none; give all of them, or none")
        if self.forward_only and not base_digest:
            raise ValueError(
                "a forward-only delta needs the base_digest, since it has no other way to know its base; "
                "state_digest(model) before training gives it"
            )

    @classmethod
    def between(
        cls,
        before: State,
        after: State,
        *,
        forward_only: bool = False,
        dense: str = "store",
        info: Mapping[str, Any] | None = None,
    ) -> TaskDelta:
        """Return the delta from one model to another: every entry whose bits differ.

        Parameters
        ----------
        before, after : Module or mapping of str to Tensor
            Models or state dicts of the same names, shapes and dtypes, on any devices.
        forward_only : bool
            Leave out the values before. The file is half as large, and `undo_` is not possible.
        dense : str
            What to do with a tensor of which so much changed that storing all of it takes less room: ``"store"`` all of
            it, or ``"refuse"`` it with a ValueError.
        info : mapping, optional
            As for `TaskDelta`.

        Raises
        ------
        ValueError
            If a tensor is in one of them only, or differs in shape or dtype; the message names it.
        """
        if dense not in ("store", "refuse"):
            raise ValueError(f"dense is {dense!r}, expected 'store' or 'refuse'")
        old, new = tensors_of(before), tensors_of(after)
        if odd := sorted(old.keys() ^ new.keys()):
            raise ValueError(f"{odd[0]!r} is in the model {'before' if odd[0] in old else 'after'} only")
        changes = {}
        for name, tensor in new.items():
            check_like(name, old[name], tuple(tensor.shape), tensor.dtype, "after")
            change = change_between(old[name], tensor, forward_only)
            if change is not None:
                if change.positions is None and dense == "refuse":
                    raise ValueError(
                        f"so much of {name!r} changed that all {change.numel} entries would be stored; "
                        "allow that with dense='store'"
                    )
                changes[name] = change
        return cls(changes, state_digest(old), state_digest(new), info)

    @property
    def forward_only(self) -> bool:
        """Whether there are no values before, so that it cannot be undone. An empty delta can be."""
        return any(change.old is None for change in self.changes.values())

    @property
    def entries(self) -> int:
        """The number of entries that are stored, of all tensors together."""
        return sum(change.entries for change in self.changes.values())

    def __repr__(self) -> str:
        kind = ", forward-only" if self.forward_only else ""
        return f"TaskDelta({self.entries:,} entries in {len(self.changes)} tensors{kind})"

    def __eq__(self, other: object) -> bool:
        """Return whether another delta is the same, bit for bit, its digests and info too."""
        if not isinstance(other, TaskDelta):
            return NotImplemented
        ours, theirs = ((d.base_digest, d.result_digest, d.info, d.changes.keys()) for d in (self, other))
        return ours == theirs and all(change.same(other.changes[name]) for name, change in self.changes.items())

    def to(self, device: torch.device | str) -> TaskDelta:
        """Return the same delta with its tensors on a device, where applying it then copies nothing."""
        changes = {name: change.to(device) for name, change in self.changes.items()}
        return TaskDelta(changes, self.base_digest, self.result_digest, self.info)

    def apply_(self, target: State, *, verify: bool = False) -> None:
        """Change a model in place from before the task to after it.

        Parameters
        ----------
        target : Module or mapping of str to Tensor
            It may have tensors that the delta does not name.
        verify : bool
            Compare the digest of the whole model first, too.

        Raises
        ------
        ValueError
            If the model is another one, or has the delta already; the message names the tensor. Nothing is changed.
        """
        if verify or self.forward_only:
            self.verify(target)
        write(target, [Stage(self.changes, forward=True)])

    def undo_(self, target: State, *, verify: bool = False) -> None:
        """Change a model in place from after the task back to before it.

        Parameters and errors are those of `apply_`. A forward-only delta raises a ValueError.
        """
        if self.forward_only:
            raise ValueError("this delta is forward-only: it does not have the values before, so it cannot be undone")
        if verify:
            self.verify(target, applied=True)
        write(target, [Stage(self.changes, forward=False)])

    def swap_(self, target: State, other: TaskDelta) -> None:
        """Replace this delta in a model by another one of the same base: undo it, apply the other, in one pass.

        Parameters
        ----------
        target : Module or mapping of str to Tensor
            The model after this delta's task; afterwards it is the one after the other's.
        other : TaskDelta
            Not forward-only, as this one.

        Raises
        ------
        ValueError
            As for `apply_` and `undo_`; nothing is changed.
        """
        if self.forward_only or other.forward_only:
            raise ValueError("a forward-only delta has no values before, so it cannot be swapped; undo needs them")
        if self.base_digest and other.base_digest and self.base_digest != other.base_digest:
            raise ValueError(f"the deltas have different bases: {self.base_digest} and {other.base_digest}")
        write(target, [Stage(self.changes, forward=False), Stage(other.changes, forward=True)])

    def verify(self, target: State, *, applied: bool = False) -> None:
        """Raise ValueError unless a model is, bit for bit, the one before the task, or after it.

        Parameters
        ----------
        target : Module or mapping of str to Tensor
            All its names, shapes, dtypes and values enter the digest, those that the delta does not change too.
        applied : bool
            Expect the model after the task.
        """
        expected, other = self.base_digest, self.result_digest
        if applied:
            expected, other = other, expected
        if not expected:
            raise ValueError(f"this delta does not have the digest of the model {'after' if applied else 'before'} it")
        found = state_digest(target)
        if found == expected:
            return
        if found == other:
            raise ValueError(f"the model {'does not have this delta' if applied else 'has this delta already'}")
        raise ValueError(
            f"the model is not the one {'after' if applied else 'before'} this delta: its digest is {found}, expected "
            f"{expected}"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the delta to a file; `docs/deltas.md` has its layout."""
        from mist_ext.deltas import files  # which alone needs safetensors

        files.write(path, self.changes, self.base_digest, self.result_digest, self.info)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TaskDelta:
        """Return the delta in a file, which may come from anywhere: nothing in it is run, and all of it is checked.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is damaged or of another layout; the message names the file, and the tensor.
        """
        from mist_ext.deltas import files

        return cls(*files.read(path))
