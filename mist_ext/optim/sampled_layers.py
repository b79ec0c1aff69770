"""Layers whose backward pass computes the kept entries of the weight's gradient alone."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mist_ext.kernels import ops
from mist_ext.optim.sampled_weight import WEIGHTS, SampledWeight


class SampledLinear(torch.autograd.Function):
    """`F.linear` whose weight gets no gradient; the proxy gets that of the kept entries."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, proxy: Tensor, *draw: Any) -> Tensor:
        remember(ctx, input, weight, bias, proxy, *draw)
        with torch.autocast(input.device.type, enabled=False):
            made = F.linear(input, weight.to(input.dtype), None if bias is None else bias.to(input.dtype))
        # F.linear may give a view of its own, and autograd lets no view that a function has made be changed in place.
        return torch.ops.aten._unsafe_view(made, made.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        input, weight, index, places, step, rule = ctx.saved_tensors  # whose versions are checked, whatever is needed
        refuse_other(ctx)
        rows = gradient.reshape(-1, weight.shape[0])
        of_input = of_bias = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_input = gradient @ weight.to(gradient.dtype)
            if ctx.needs_input_grad[2]:
                of_bias = rows.sum(0).to(ctx.bias_dtype)
        kept = kept_gradient(ctx, rows, input.reshape(-1, weight.shape[1]), index, places, step, rule)
        return of_input, None, of_bias, kept, None, None, None, None, None


class SampledPatches(torch.autograd.Function):
    """`F.conv2d` over patches side by side, which is a linear layer; otherwise as `SampledLinear`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, proxy: Tensor, *draw: Any) -> Tensor:
        remember(ctx, input, weight, bias, proxy, *draw)
        stride = weight.shape[2:]
        with torch.autocast(input.device.type, enabled=False):
            return F.conv2d(input, weight.to(input.dtype), None if bias is None else bias.to(input.dtype), stride)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        input, weight, index, places, step, rule = ctx.saved_tensors
        refuse_other(ctx)
        out, channels, height, width = weight.shape
        of_input = of_bias = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                shape = [height, width], [0, 0], [1, 1], False, [0, 0], 1, [True, False, False]
                filters = weight.to(gradient.dtype)
                of_input = torch.ops.aten.convolution_backward(gradient, input, filters, None, *shape)[0]
            rows = gradient.permute(0, 2, 3, 1).reshape(-1, out)
            if ctx.needs_input_grad[2]:
                of_bias = rows.sum(0).to(ctx.bias_dtype)
        down, across = gradient.shape[2:]
        cut = input[:, :, : down * height, : across * width].reshape(-1, channels, down, height, across, width)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * height * width)
        kept = kept_gradient(ctx, rows, patches, index, places, step, rule)
        return of_input, None, of_bias, kept, None, None, None, None, None


def remember(
    ctx: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    proxy: Tensor,
    index: Tensor | None,
    places: Tensor,
    step: Tensor,
    rule: Tensor,
    sampled: SampledWeight,
) -> None:
    """Save what the backward pass needs."""
    ctx.save_for_backward(input, weight, index, places, step, rule)
    ctx.sampled = sampled
    ctx.drawn = None if torch.compiler.is_compiling() else sampled.draw.current
    ctx.capacity = proxy.numel()
    ctx.bias_dtype = None if bias is None else bias.dtype


def refuse_other(ctx: Any) -> None:
    """Raise RuntimeError where gradients of gradients are asked for, or those of another step."""
    if torch.compiler.is_compiling():
        return
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"create_graph=True asks for gradients of the gradient of {ctx.sampled.name!r}, of which SampledGradients "
            "computes the kept entries alone, and not differentiably; leave the context for that pass"
        )
    now = ctx.sampled.draw.current
    if ctx.drawn is not None and ctx.drawn != now:  # where hooks have saved what torch would find changed
        raise RuntimeError(
            f"the forward pass of {ctx.sampled.name!r} ran for the entries that step {ctx.drawn.step} keeps, and this "
            f"is step {now.step}; call backward() before optimizer.step(), or leave SampledGradients out"
        )


def kept_gradient(
    ctx: Any, rows: Tensor, inputs: Tensor, index: Tensor | None, places: Tensor, step: Tensor, rule: Tensor
) -> Tensor:
    """Return the kept entries of ``rows.T @ inputs``, packed: float32 ``[capacity]``, 0 beyond the kept ones."""
    if torch.compiler.is_compiling():
        return compiled_packed_gradient(rows, inputs, index, places, step, rule, ctx.capacity)
    return packed_gradient(rows, inputs, index, places, step, rule, ctx.capacity)


def packed_gradient(
    rows: Tensor, inputs: Tensor, index: Tensor | None, places: Tensor, step: Tensor, rule: Tensor, capacity: int
) -> Tensor:
    """Return the kept entries of ``rows.T @ inputs`` by a rule that the host reads; note that they were computed."""
    packed = torch.zeros(capacity, dtype=torch.float32, device=rows.device)
    ordinal, threshold, seed, key = rule.tolist()
    if key in WEIGHTS:
        WEIGHTS[key].pending = True
    if rows.shape[0]:
        ops.sampled_weight_grad_(
            packed, [rows.contiguous()], [inputs.contiguous()], [index], places, [0], [ordinal],
            threshold=threshold, seed=seed, step=step,
        )  # fmt: skip
    return packed


# One op to torch.compile, so that what differs from layer to layer is a tensor, and all blocks share one graph.
compiled_packed_gradient = torch.library.custom_op("mist_ext::packed_gradient", packed_gradient, mutates_args=())


@compiled_packed_gradient.register_fake
def _(
    rows: Tensor, inputs: Tensor, index: Tensor | None, places: Tensor, step: Tensor, rule: Tensor, capacity: int
) -> Tensor:
    return rows.new_empty(capacity, dtype=torch.float32)


def layer_kind(module: nn.Module) -> type[torch.autograd.Function] | None:
    """Return what can sample a layer's gradient; None where nothing can."""
    own = module.__dict__.get("forward")
    plain = getattr(own, "__func__", None) is type(module).forward  # of a layer that was saved within a context
    if own is not None and not plain and getattr(own, "__module__", None) != __name__:
        return None  # somebody else's
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return None  # attention uses its weight by itself
    if type(module).forward is nn.Linear.forward:
        return SampledLinear
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward:
        patches = module.kernel_size == module.stride and module.dilation == (1, 1) and module.groups == 1
        if patches and module.padding in ((0, 0), "valid"):
            return SampledPatches
    return None


def layers_of(model: nn.Module) -> dict[Tensor, list[nn.Module]]:
    """Return the modules of each weight that no other than such layers use."""
    layers: dict[Tensor, list[nn.Module]] = {}
    others: set[Tensor] = set()
    for module in model.modules():
        sampling = layer_kind(module) is not None
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if sampling and name == "weight":
                    layers.setdefault(parameter, []).append(module)
                else:
                    others.add(parameter)
    return {weight: modules for weight, modules in layers.items() if weight not in others}


def sample(module: nn.Module, sampled: SampledWeight) -> None:
    """Give a layer a forward of its own, until `restore`."""
    module.forward = types.MethodType(sampled_forward(layer_kind(module), sampled), module)  # type: ignore[arg-type]


def restore(module: nn.Module) -> None:
    """Give a layer its type's forward back."""
    module.__dict__.pop("forward", None)


def transformed() -> bool:
    """Return whether torch does more than forward and backward here: `torch.func`, dual numbers, or tracing."""
    if torch.compiler.is_compiling():
        return False
    functional = torch._C._are_functorch_transforms_active()
    return functional or forward_ad._current_level >= 0 or torch.jit.is_tracing()


def sampled_forward(function: type[torch.autograd.Function], sampled: SampledWeight) -> Callable[..., Tensor]:
    """Return the forward of a layer whose weight's gradient is sampled.

    A copy of the layer has another weight, with which this is the type's own forward. By its name pickle finds that.
    """

    images = function is SampledPatches

    def forward(self: nn.Module, input: Tensor) -> Tensor:
        weight = self.weight
        dense = input.is_nested or input.layout != torch.strided or (images and input.ndim != 4) or transformed()
        if weight is not sampled.parameter or not weight.requires_grad or not torch.is_grad_enabled() or dense:
            return type(self).forward(self, input)
        sampled.refuse_moved(weight)
        kind = input.device.type
        cast = torch.is_autocast_enabled(kind) and input.is_floating_point() and input.dtype != torch.float64
        if not cast and input.dtype != weight.dtype:
            return type(self).forward(self, input)  # which refuses it
        draw = sampled.draw
        if not torch.compiler.is_compiling() and draw.keep != draw.needed:
            draw.changed()
        if cast:
            input = input.to(torch.get_autocast_dtype(kind))
        drawn = sampled.proxy, sampled.index, sampled.places, draw.step, sampled.rule
        return function.apply(input, weight, self.bias, *drawn, sampled)

    return forward
