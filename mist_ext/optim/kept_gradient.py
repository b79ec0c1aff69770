"""The gradient of a weight of which only the entries that a step keeps were computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


@dataclass(frozen=True)
class Drawn:
    """What a step's kept entries were drawn by, besides what never changes."""

    step: int
    threshold: int


@dataclass
class KeptEntries:
    """The gradients of a weight's kept entries, as `ops.pack_` packs them; ``drawn`` is None for the zeros of any step.

    ``vector`` is float32, whatever the weight's dtype.
    """

    name: str
    vector: Tensor
    drawn: Drawn | None

    def add(self, vector: Tensor, drawn: Drawn) -> None:
        """Add another backward pass's; RuntimeError if they are another step's."""
        if self.drawn is None:
            self.vector, self.drawn = vector, drawn
        else:
            self.refuse_other(drawn)
            self.vector.add_(vector)

    def refuse_other(self, drawn: Drawn) -> None:
        """Raise RuntimeError if these entries were drawn otherwise."""
        if self.drawn is None or self.drawn == drawn:
            return
        if self.drawn.step != drawn.step:
            raise RuntimeError(
                f"the gradient of {self.name!r} was sampled for step {self.drawn.step}, and this is step {drawn.step}; "
                "call optimizer.zero_grad() after step()"
            )
        before, now = (one.threshold / 65536 for one in (self.drawn, drawn))
        raise RuntimeError(
            f"the gradient of {self.name!r} was sampled with keep at {before:.6g}, and the keep of its group is now "
            f"{now:.6g}; call optimizer.zero_grad() and go through the batch again"
        )


class KeptGradient(Tensor):
    """Stands for a weight's gradient of which only the kept entries were computed; it has no dense memory.

    Clipping by the norm, `GradScaler` and ``zero_grad`` work on the kept entries; every other operation raises.

    Parameters
    ----------
    entries : KeptEntries
        The kept entries' gradients.
    parameter : Tensor
        Whose shape, dtype and device it has.

    Raises
    ------
    RuntimeError
        By every operation that would need the other entries, with the parameter's name.
    """

    entries: KeptEntries
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # norms are plain tensors

    def __new__(cls, entries: KeptEntries, parameter: Tensor) -> KeptGradient:
        shape, dtype, device = parameter.shape, parameter.dtype, parameter.device
        gradient: KeptGradient = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        gradient.entries = entries
        return gradient

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override] # mypy misreads torch's
        return f"KeptGradient({self.entries.name!r}, {self.entries.vector.numel()} of {self.numel()} entries)"

    def share_memory_(self) -> NoReturn:  # torch would look for memory, and crash
        _refuse("share_memory_", [self])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch's own is declared as what switches it off
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in _WORKING or any(isinstance(value, KeptGradient) for value in tree_leaves((args[1:], kwargs))):
            _refuse(func, tree_leaves((args, kwargs)))
        return _WORKING[func](func, *args, **(kwargs or {}))


def _refuse(func: Any, values: list[Any]) -> NoReturn:
    kept = next(value for value in values if isinstance(value, KeptGradient))
    told = f"SampledGradients computed the kept entries of the gradient of {kept.entries.name!r} alone, "
    if func in (aten.add.Tensor, aten.add_.Tensor):
        raise RuntimeError(
            f"{told}to which nothing dense can be added; if the weight is used outside of its layer too, as by "
            "F.linear(x, layer.weight), call the layer instead, or leave SampledGradients out"
        )
    raise RuntimeError(
        f"{told}and {func} needs all; clip_grad_norm_, GradScaler, zero_grad and accumulation over several backward "
        "passes work, so leave SampledGradients out for anything else"
    )


def _detach(func: Any, kept: KeptGradient) -> KeptGradient:
    return KeptGradient(kept.entries, kept)


def _vector(tensor: Tensor) -> Tensor:
    return tensor.entries.vector if isinstance(tensor, KeptGradient) else tensor


def _scale(func: Any, kept: KeptGradient, factor: Any) -> KeptGradient:
    if isinstance(factor, Tensor) and factor.numel() != 1:
        _refuse(func, [kept])
    func(kept.entries.vector, factor)
    return kept


def _zero(func: Any, kept: KeptGradient) -> KeptGradient:
    kept.entries.vector.zero_()
    kept.entries.drawn = None
    return kept


def _norm(
    func: Any, kept: KeptGradient, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    if keepdim or (dim is not None and len(dim) not in (0, kept.ndim)):
        _refuse(func, [kept])
    dtype = dtype or kept.dtype
    if not kept.entries.vector.numel():  # whose largest entry torch does not know
        return torch.zeros((), dtype=dtype, device=kept.device)
    return torch.linalg.vector_norm(kept.entries.vector, order).to(dtype)


def _foreach_norm(func: Any, tensors: list[Tensor], order: Any = 2, dtype: Any = None) -> list[Tensor]:
    plain = [tensor for tensor in tensors if not isinstance(tensor, KeptGradient)]
    norms = iter(func(plain, order, dtype) if plain else [])
    return [_norm(func, t, order, dtype=dtype) if isinstance(t, KeptGradient) else next(norms) for t in tensors]


def _foreach_in_place(func: Any, tensors: list[Tensor], *rest: Any) -> None:
    for kind in (True, False):  # the vectors may have another dtype than the plain ones
        if chosen := [_vector(tensor) for tensor in tensors if isinstance(tensor, KeptGradient) is kind]:
            func(chosen, *rest)


def _foreach_zero(func: Any, tensors: list[Tensor]) -> None:
    _foreach_in_place(func, tensors)
    for tensor in tensors:
        if isinstance(tensor, KeptGradient):
            tensor.entries.drawn = None


_WORKING: dict[Any, Callable[..., Any]] = {
    aten.detach.default: _detach,
    aten.zero_.default: _zero,
    aten._foreach_zero_.default: _foreach_zero,
    aten.mul_.Tensor: _scale,
    aten.mul_.Scalar: _scale,
    aten._foreach_mul_.Tensor: _foreach_in_place,
    aten._foreach_mul_.Scalar: _foreach_in_place,
    aten.linalg_vector_norm.default: _norm,
    aten._foreach_norm.Scalar: _foreach_norm,
    aten._amp_foreach_non_finite_check_and_unscale_.default: _foreach_in_place,
}
