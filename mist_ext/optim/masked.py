"""Masking of gradients before a dense optimiser: the published dynamics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.distributed.shard import is_sharded, local
from mist_ext.kernels import ops
from mist_ext.optim.checks import check_complete, check_draw, check_shape, check_sizes
from mist_ext.optim.groups import selected_pairs
from mist_ext.optim.saving import check_selection
from mist_ext.parameters import dense, with_names
from mist_ext.selection import Selection


class MaskedGradient:
    """Zero the gradients of all but the kept selected entries, for use before any torch optimiser.

    This is the published dynamics: the optimiser behind it is dense, so momentum and weight decay still move entries
    whose gradient was dropped. It keeps the same entries as `SparseSGD` with the same seed and selection.

    Parameters
    ----------
    named_parameters, selection, keep, seed, step, scale_code, scale_table, model
        As in `SparseSGD`, but no parameter groups.

    Raises
    ------
    TypeError, ValueError
        As `SparseSGD`.
    RuntimeError
        By `apply_`, for a sparse gradient, or a parameter whose size has changed.

    Examples
    --------
    >>> masked = MaskedGradient(model.named_parameters(), selection, keep=0.1)
    >>> loss.backward()
    >>> masked.apply_()
    >>> optimizer.step()
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        selection: Selection,
        keep: float = 0.1,
        seed: int = 0,
        step: int = 0,
        scale_code: Mapping[str, Tensor] | None = None,
        scale_table: Tensor | None = None,
        model: nn.Module | None = None,
    ) -> None:
        check_draw(seed, step)
        parameters = dict(selected_pairs(named_parameters, selection, model))
        check_complete(selection, parameters)
        for name in selection:
            check_shape(selection, name, parameters[name])
        if unknown := sorted((scale_code or {}).keys() - selection.keys()):
            raise ValueError(f"scale_code names {unknown[0]!r}, which is not in the selection")
        self.selection = selection
        self.parameters = {name: parameters[name] for name in selection}
        self.threshold = ops.keep_threshold(keep)
        self.keep = keep
        self.seed = seed
        device = next(iter(self.parameters.values())).device if self.parameters else torch.device("cpu")
        self._step = torch.tensor(step, dtype=torch.int64, device=device)
        self._index = {name: None if index is None else index.to(device) for name, index in selection.items()}
        self._code = {name: code.to(device) for name, code in (scale_code or {}).items()}
        self._table = None if scale_table is None else scale_table.to(device)

    @property
    def steps(self) -> int:
        """The number of steps so far. On a GPU, reading it waits for the device."""
        return int(self._step)

    @torch.no_grad()
    def apply_(self) -> None:
        """Mask the existing gradients in place, and count a step; each step draws anew."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        check_sizes(self.selection, names, [self.parameters[name] for name in names])
        grads: list[Tensor] = []
        for name in names:
            gradient = self.parameters[name].grad
            assert gradient is not None
            if not is_sharded(gradient):
                gradient = self.parameters[name].grad = dense(name, gradient)
            grads.append(local(gradient))
        try:
            ops.mask_(
                grads,
                [self._index[name] for name in names],
                [self._code.get(name) for name in names] if self._code else [],
                self._table,
                [self.selection.ordinal[name] for name in names],
                first=[self.selection.first(name) for name in names] if self.selection.shards else [],
                threshold=self.threshold,
                seed=self.seed,
                step=self._step,
            )
        except RuntimeError as error:
            raise RuntimeError(with_names(error, names)) from error
        self._step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps so far, and what else decides which entries are kept."""
        return {"step": self.steps, "seed": self.seed, "keep": self.keep, "selection": self.selection.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the step after the saved one.

        Raises
        ------
        ValueError
            If it has another seed, probability or selection; the message has the difference.
        """
        for key in ("step", "seed", "keep", "selection"):
            if key not in state:
                raise ValueError(f"this is not the state of a MaskedGradient: it has no {key!r}")
        for key, ours in {"seed": self.seed, "keep": self.keep}.items():
            if state[key] != ours:
                raise ValueError(f"the state was saved with {key} {state[key]!r}, but this one has {ours!r}")
        check_selection(self.selection, state["selection"])
        check_draw(self.seed, state["step"])
        self._step.fill_(state["step"])
