"""Computes anew in backward what takes much memory and next to no time: what norms and GELU give to linear layers.

A block of a timm ViT of width d keeps 16 d numbers a token for backward. Of these, 4 d are what GELU gives to the MLP's
second layer, and twice d what a norm gives to a linear layer; what GELU and the norms were given is kept beside them.
From that the same function makes the same bits again, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary


@contextmanager
def recomputed(*networks: nn.Module) -> Iterator[None]:
    """Keep less for backward of what goes forward in the block through timm's ViTs; gradients have the same bits.

    Left alone are ViTs whose blocks are compiled or checkpointed, which keep what they keep by themselves.

    Parameters
    ----------
    *networks : Module
        Which are or contain ViTs.

    Raises
    ------
    RuntimeError
        By backward, where what is to be computed anew was changed in place since forward.
    """
    from timm.models.vision_transformer import VisionTransformer

    found = {m for network in networks for m in network.modules() if isinstance(m, VisionTransformer)}
    made = WeakTensorKeyDictionary()  # from a tensor to how it is made again
    with ExitStack() as stack:
        for vit in filter(_runs_as_written, found):
            for module in vit.modules():
                if (again := _maker(module)) is not None:
                    note = partial(_note, made, again)
                    # Before what methods do to an output.
                    stack.callback(module.register_forward_hook(note, prepend=True).remove)
                elif type(module) is nn.Linear:
                    saving = _Saving(made)
                    stack.callback(module.register_forward_pre_hook(saving.begin).remove)
                    stack.callback(module.register_forward_hook(saving.end, always_call=True).remove)
        yield


def _runs_as_written(vit: Any) -> bool:
    compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in vit.modules())
    return not (compiled or vit.grad_checkpointing)


def _maker(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the function of its input that a module is, without anyone's hooks; None unless it is GELU or a norm."""
    from timm.layers import LayerNorm

    if type(module) is nn.GELU:
        return partial(functional.gelu, approximate=module.approximate)
    if type(module) in (nn.LayerNorm, LayerNorm) and not getattr(module, "_fast_norm", False):
        return _Norm(module)
    return None


class _Norm:
    """A LayerNorm with the parameters that it has when it is asked."""

    def __init__(self, module: nn.LayerNorm) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        own = self.module
        return functional.layer_norm(x, own.normalized_shape, own.weight, own.bias, own.eps)


def _note(
    made: WeakTensorKeyDictionary,
    make: Callable[[Tensor], Tensor],
    _module: nn.Module,
    args: tuple[Any, ...],
    output: Tensor,
) -> None:
    if len(args) == 1 and output.requires_grad and output.dtype == args[0].dtype:  # else autocast had a part in it
        made[output] = _Again(make, args[0], output._version)


class _Again:
    """Makes a module's output again from its input."""

    def __init__(self, make: Callable[[Tensor], Tensor], given: Tensor, made_version: int) -> None:
        self.make, self.given, self.version = make, given, given._version
        self.made_version = made_version

    @torch.no_grad()
    def __call__(self) -> Tensor:
        _require_unchanged(self.given, self.version)
        return self.make(self.given)


class _Saving:
    """Stands in for what a linear layer keeps for backward while it runs."""

    def __init__(self, made: WeakTensorKeyDictionary) -> None:
        self.made = made
        self.hooks: list[saved_tensors_hooks] = []

    def begin(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        again = self.made.get(args[0]) if args else None
        if again is not None and args[0]._version == again.made_version:
            # By its place in memory, since torch keeps the hook, and with it whatever that holds.
            self.hooks.append(saved_tensors_hooks(partial(_pack, _place(args[0]), again), _unpack))
            self.hooks[-1].__enter__()

    def end(self, *_: Any) -> None:
        if self.hooks:
            self.hooks.pop().__exit__()


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _pack(place: int, again: _Again, saved: Tensor) -> Callable[[], Tensor]:
    if _place(saved) == place:
        return partial(_placed, again, saved.size(), saved.stride(), int(saved.storage_offset()))
    return partial(_unchanged, saved, saved._version)


def _unpack(packed: Callable[[], Tensor]) -> Tensor:
    return packed()


def _placed(again: _Again, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
    return again().as_strided(size, stride, offset)


def _unchanged(saved: Tensor, version: int) -> Tensor:
    _require_unchanged(saved, version)
    return saved


def _require_unchanged(tensor: Tensor, version: int) -> None:
    """Do what torch does for what it keeps itself."""
    if tensor._version != version:
        raise RuntimeError(
            f"a tensor of shape {list(tensor.shape)} that backward needs was changed in place since forward: it is at "
            f"version {tensor._version}, expected {version}; change a copy of it"
        )
