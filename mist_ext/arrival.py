"""Hooks that take each gradient as soon as backward has made it, and the placeholder that they leave."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary


class UsedGradient(Tensor):
    """Replaces a gradient that was used and freed; it has no memory, and any computation with it raises an error.

    Without it clipping, norms, `GradScaler` and a second backward pass would find no gradient, and silently do nothing.

    Parameters
    ----------
    name : str
        The parameter's name, for the error.
    parameter : Tensor
        Whose shape, dtype and device it has.

    Raises
    ------
    RuntimeError
        By every operation on it, with the parameter's name.
    """

    parameter_name: str

    def __new__(cls, name: str, parameter: Tensor) -> UsedGradient:
        shape, dtype, device = parameter.shape, parameter.dtype, parameter.device
        gradient: UsedGradient = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        gradient.parameter_name = name
        return gradient

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override] # mypy misreads torch's
        return f"UsedGradient({self.parameter_name!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch's own is declared as what switches it off
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        used = next(value for value in tree_leaves((args, kwargs)) if isinstance(value, UsedGradient))
        raise RuntimeError(
            f"the gradient of {used.parameter_name!r} was used by an in-backward step and freed; clipping, norms, "
            "GradScaler, a second backward pass before optimizer.step() and reentrant checkpointing need gradients "
            "after backward, so leave InBackward out for those"
        )


class Arrivals:
    """Calls a function with every parameter whose gradient backward has just made.

    A parameter is watched by one of them at a time, since a gradient that one takes is gone for another.

    Parameters
    ----------
    owner : str
        The name in errors of what takes the gradients.
    """

    _watched: ClassVar = WeakTensorKeyDictionary()  # the owner by parameter

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._parameters: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def watch(self, parameters: Mapping[str, Tensor], take: Callable[[str, Tensor], None]) -> None:
        """Call ``take(name, parameter)`` at each gradient of these parameters from now on.

        Raises
        ------
        RuntimeError
            If a parameter already has a gradient, or is watched by another.
        """
        self.claim(parameters)
        for name, parameter in parameters.items():
            hook = functools.partial(self._arrive, take, name)
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def claim(self, parameters: Mapping[str, Tensor]) -> None:
        """Keep others from watching these parameters, as `watch` does, where their gradients arrive in another way."""
        for name, parameter in parameters.items():
            if other := self._watched.get(parameter):
                raise RuntimeError(
                    f"{other} takes the gradient of {name!r} already, and {self.owner} would find none; leave one "
                    "before entering the other"
                )
            if parameter.grad is not None:
                raise RuntimeError(
                    f"{name!r} already has a gradient, which {self.owner} would take too; call model.zero_grad() or "
                    "optimizer.step() first"
                )
        for parameter in parameters.values():
            self._watched[parameter] = self.owner
            self._parameters.append(parameter)

    def _arrive(self, take: Callable[[str, Tensor], None], name: str, parameter: Tensor) -> None:
        if parameter.grad is None:
            raise RuntimeError(
                f"the gradient of {name!r} was gone before {self.owner} could take it; remove the hook that frees it"
            )
        take(name, parameter)

    def end(self) -> None:
        """Stop watching, so that others may watch the parameters."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._parameters:
            del self._watched[parameter]
        self._handles.clear()
        self._parameters.clear()
