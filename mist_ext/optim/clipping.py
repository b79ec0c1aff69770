"""Clipping by the global norm is refused where gradients are used up in backward: it would find none and do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.utils import clip_grad

# What `clip_grad_norm_` calls with the gradients that it found. Replacing that one reaches every caller, however it has
# imported `clip_grad_norm_` itself. It is torch's own business: where a later torch has none, nothing is refused.
TOTAL_NORM = "_get_total_norm"


class RefusedClipping:
    """While it is entered as a context, `torch.nn.utils.clip_grad_norm_` that finds no gradient raises RuntimeError."""

    _entered: ClassVar[list[RefusedClipping]] = []
    _original: ClassVar[Callable[..., Tensor]]

    def __enter__(self) -> None:
        if not self._entered and hasattr(clip_grad, TOTAL_NORM):
            RefusedClipping._original = getattr(clip_grad, TOTAL_NORM)
            setattr(clip_grad, TOTAL_NORM, _total_norm)
        self._entered.append(self)

    def __exit__(self, *_: object) -> None:
        if self in self._entered:
            self._entered.remove(self)
            if not self._entered and hasattr(clip_grad, TOTAL_NORM):
                setattr(clip_grad, TOTAL_NORM, RefusedClipping._original)


def _total_norm(tensors: Iterable[Tensor], *arguments: Any, **options: Any) -> Tensor:
    found = list(tensors)
    if not found:
        raise RuntimeError(
            "clip_grad_norm_ found no gradient: in-backward steps have used and freed them all, so the global norm is "
            "not known; step after backward to clip by it"
        )
    return RefusedClipping._original(found, *arguments, **options)
