"""Gradients masked for a dense optimiser: the published dynamics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mist_ext import ops
from mist_ext.distributed.shard import is_sharded, local
from mist_ext.optim.sparse import check_seed, check_shape
from mist_ext.selection import Selection, named


class MaskedGradient:
    """Keeps the drawn entries of the selected gradients and makes the others zero, for use before any torch optimiser.

    This is the published dynamics: the optimiser behind it is dense, so momentum and weight decay still move entries
    whose gradient was dropped. It draws the same entries as `SparseSGD` with the same seed and selection.

    Parameters
    ----------
    named_parameters, selection, keep, seed, step, scale_code, scale_table
        As in `SparseSGD`.

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
    ) -> None:
        parameters = dict(named_parameters)
        for name in selection:
            if name not in parameters:
                raise ValueError(f"the selection names {name!r}, which is not among the parameters given")
            check_shape(selection, name, parameters[name])
        self.selection = selection
        self.parameters = {name: parameters[name] for name in selection}
        self.threshold = ops.keep_threshold(keep)
        self.seed = check_seed(seed)
        device = next(iter(self.parameters.values())).device if self.parameters else torch.device("cpu")
        self._step = torch.tensor(step, dtype=torch.int64, device=device)
        self._index = {name: None if index is None else index.to(device) for name, index in selection.items()}
        self._code = {name: code.to(device) for name, code in (scale_code or {}).items()}
        self._table = None if scale_table is None else scale_table.to(device)

    @property
    def steps(self) -> int:
        """The number of draws so far. On a GPU, reading it waits for the device."""
        return int(self._step)

    @torch.no_grad()
    def apply_(self) -> None:
        """Mask the gradients that are there, in place; the next call draws anew."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        grads: list[Tensor] = []
        for name in names:
            gradient = self.parameters[name].grad
            assert gradient is not None
            if not is_sharded(gradient):
                gradient = self.parameters[name].grad = gradient.contiguous()
            grads.append(local(gradient))
        try:
            ops.mask_(
                grads,
                [self._index[name] for name in names],
                [self._code.get(name) for name in names] if self._code else [],
                self._table,
                [self.selection.ordinal[name] for name in names],
                first=[self.selection.first(name) for name in names] if self.selection.cuts else [],
                threshold=self.threshold,
                seed=self.seed,
                step=self._step,
            )
        except RuntimeError as error:
            raise RuntimeError(named(error, names)) from error
        self._step += 1

    def state_dict(self) -> dict[str, int]:
        """The number of draws so far."""
        return {"step": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on drawing where the saved one stopped."""
        self._step.fill_(state["step"])
