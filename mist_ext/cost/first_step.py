"""What the first step of a torch optimiser holds and changes, whoever made it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from mist_ext.tuners.changes import differing_entries


class FirstStep:
    """A context that looks at the first step taken within it.

    Attributes
    ----------
    trained : int or None
        Entries of the optimiser's parameters; None where there was no step, as the next.
    changed : int or None
        Those whose bits differ afterwards.
    """

    def __init__(self) -> None:
        self.trained: int | None = None
        self.changed: int | None = None
        self._before: list[Tensor] = []

    def __enter__(self) -> FirstStep:
        self._hooks = [
            register_optimizer_step_pre_hook(self._copy),
            register_optimizer_step_post_hook(self._compare),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _copy(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self.trained is None:
            self._before = [parameter.detach().clone() for parameter in _parameters(optimizer)]

    def _compare(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self.trained is None:
            pairs = zip(self._before, _parameters(optimizer), strict=True)
            self.trained = sum(parameter.numel() for parameter in self._before)
            self.changed = sum(differing_entries(before, after) for before, after in pairs)
            self._before = []


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
