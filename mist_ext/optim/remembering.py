"""What an optimiser has changed since it was made, as a task delta."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mist_ext.distributed.shard import is_sharded
from mist_ext.selection import Selection

if TYPE_CHECKING:
    from mist_ext.deltas import TaskDelta

BEFORE = "before"  # the key in a parameter's state


class Remembering:
    """Knows the positions of all that changes and, with ``remember``, the values there before the first step."""

    remember: bool
    selection: Selection
    state: Any
    param_groups: list[dict[str, Any]]

    @torch.no_grad()
    def delta(
        self, model: nn.Module | None = None, *, base_digest: str = "", info: Mapping[str, Any] | None = None
    ) -> TaskDelta:
        """Return what has changed since the optimiser was made, without a second copy of the model.

        With ``remember=True`` it has the entries that differ, with their values before and after. Otherwise it has all
        selected entries with their values after: a forward-only delta, which needs ``base_digest``.

        Parameters
        ----------
        model : Module, optional
            The model that the parameters belong to: names are those of its ``state_dict()``, tied ones too, and the
            delta gets the digests of the whole model. What the optimiser does not update, such as buffers, is taken to
            be as it was. Without it, names are those of the parameters as they were given, and there are no digests.
        base_digest : str
            `mist_ext.deltas.state_digest` of the model before the first step, where the values before are not known.
        info : mapping, optional
            As for `TaskDelta`.

        Raises
        ------
        ValueError
            For a sharded parameter, one that is not the model's, or without any values before and ``base_digest``.
        """
        from mist_ext.deltas.recorded import recorded_delta

        entries = {}
        for name, parameter in self._selected():
            if is_sharded(parameter):
                raise ValueError(
                    f"{name!r} is sharded, and a delta is of whole tensors: gather the model before and after, with "
                    "torch.distributed.checkpoint.state_dict, and use TaskDelta.between"
                )
            entries[name] = (parameter.detach(), self.selection[name], self.state[parameter].get(BEFORE))
        return recorded_delta(entries, model, base_digest, info)

    def _selected(self) -> Iterator[tuple[str, Tensor]]:
        for group in self.param_groups:
            yield from zip(group["param_names"], group["params"], strict=True)
