"""Backward passes that compute no more of the weights' gradients than a step keeps."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.arrival import Arrivals
from mist_ext.distributed import ranks
from mist_ext.distributed.shard import is_sharded
from mist_ext.optim.kept_gradient import KeptEntries, KeptGradient
from mist_ext.optim.sampled_layers import layers_of, restore, sample
from mist_ext.optim.sampled_weight import Draw, SampledWeight
from mist_ext.optim.sparse import Part, SparseOptimizer
from mist_ext.optim.unwrapped import unwrapped


class SampledGradients:
    """Lets backward compute only the entries of weight gradients that the next step of a sparse optimiser keeps.

    Which entries a step keeps is known before its forward pass. While this is entered as a context, the backward pass
    of each `nn.Linear`, and of each `nn.Conv2d` over patches side by side, computes those and no dense gradient:
    ``weight.grad`` is a `KeptGradient` without dense memory. They are the same entries' gradients, added up in another
    order, in float32. With ``drop="updates"`` and momentum, which takes every gradient, they are those of all selected
    entries. Biases, norms and whatever else keep their dense gradients, as do weights that a module of another kind
    uses too, and weights that FSDP2 has sharded.

    Several backward passes a step, `clip_grad_norm_`, `GradScaler`, autocast, non-reentrant checkpointing, compiled
    blocks and `SparseExchange` work as with dense gradients. A norm is that of the kept entries. What needs the others
    raises `RuntimeError`: other computations with ``weight.grad``, hooks on it, a dense gradient of the same weight.

    Parameters
    ----------
    optimizer : SparseOptimizer
        `SparseSGD` or `SparseAdamW`, or what accelerate made of one.
    model : Module
        Whose layers are meant.

    Attributes
    ----------
    names : list of str
        The weights whose gradients are sampled, while the context is entered.

    Raises
    ------
    TypeError
        For another optimiser.
    ValueError
        For an optimiser that needs dense gradients, as `LargestGradientSGD` does. When it is entered: if the
        model has no layer whose weight the optimiser updates.
    RuntimeError
        When it is entered: if a weight has a gradient already, hooks on it, or another context takes it. In backward:
        if there are several ranks and no `SparseExchange`; for ``create_graph=True``; if a weight has changed since its
        forward pass. By ``optimizer.step()``: for gradients of another step or optimiser, and hooks on a weight.

    Examples
    --------
    >>> with SampledGradients(optimizer, model):
    ...     for images, labels in loader:
    ...         loss_function(model(images), labels).backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    """

    def __init__(self, optimizer: SparseOptimizer, model: nn.Module) -> None:
        self.optimizer = unwrapped(optimizer, "SampledGradients")
        self.model = model
        self._arrivals = Arrivals("SampledGradients")
        self._draws: dict[int, Draw] = {}  # by the number of a group
        self._weights: dict[str, SampledWeight] = {}
        self._left = ExitStack()
        self._refuse_dense()

    @property
    def names(self) -> list[str]:
        return list(self._weights)

    def __enter__(self) -> SampledGradients:
        self._refuse_dense()
        if self.optimizer.sampling is not None:
            raise RuntimeError("the optimiser is in another SampledGradients already; leave that one first")
        layers = layers_of(self.model)
        chosen = self._chosen(layers)
        if not chosen:
            raise ValueError(
                "no gradient would be sampled: the optimiser updates no weight of an nn.Linear of this model, nor of "
                "an nn.Conv2d over patches; give the model that the optimiser's parameters are from"
            )
        with ExitStack() as leaving:
            leaving.callback(self._leave)
            self._arrivals.claim(chosen)
            for name, parameter in chosen.items():
                _refuse_hooks(name, parameter)
            self._draw(chosen)
            self.optimizer.sampling = self
            for name, parameter in chosen.items():
                for module in layers[parameter]:
                    sample(module, self._weights[name])
                    leaving.callback(restore, module)
            leaving.callback(self.optimizer.register_step_post_hook(self._after_step).remove)
            leaving.callback(self.optimizer.register_load_state_dict_post_hook(self._after_loading).remove)
            self._left = leaving.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _chosen(self, layers: dict[Tensor, list[nn.Module]]) -> dict[str, Tensor]:
        """Return the weights that are sampled, by name."""
        return {
            name: parameter
            for group in self.optimizer.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
            if parameter in layers and parameter.numel() and parameter.requires_grad and not is_sharded(parameter)
        }

    def _draw(self, chosen: dict[str, Tensor]) -> None:
        """Draw what the next step keeps."""
        optimizer = self.optimizer
        for number, group in enumerate(optimizer.param_groups):
            draw = Draw(group, optimizer.seed, optimizer.gradient_share, self._arrive)
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if name in chosen:
                    weight = SampledWeight(
                        name,
                        parameter,
                        optimizer.state[parameter].get("index"),
                        optimizer.selection.count(name),
                        optimizer.selection.ordinal[name],
                        draw,
                    )
                    self._weights[name] = weight
                    draw.weights.append(weight)
            if draw.weights:
                self._draws[number] = draw
                draw.renew(int(group["step"]))

    def _leave(self) -> None:
        self.optimizer.sampling = None
        self._arrivals.end()
        for weight in self._weights.values():
            assert weight.parameter is not None
            gradient = weight.parameter.grad
            if isinstance(gradient, KeptGradient) and gradient.entries.drawn != weight.draw.current:
                weight.parameter.grad = None  # else no step has had it yet, and one that comes now has to refuse it
            weight.parameter = None  # what was computed in the context and arrives later is refused
        self._weights.clear()
        self._draws.clear()

    def _after_step(self, *_: object) -> None:
        skipped = getattr(self.optimizer, "found_inf", None) is not None
        for number, draw in self._draws.items():
            draw.renew(int(self.optimizer.param_groups[number]["step"]) if skipped else draw.current.step + 1)
        for weight in self._weights.values():
            weight.pending = False

    def _after_loading(self, *_: object) -> None:
        for number, draw in self._draws.items():
            draw.group = self.optimizer.param_groups[number]
            draw.renew(int(draw.group["step"]))
        for weight in self._weights.values():
            assert weight.parameter is not None
            weight.index = self.optimizer.state[weight.parameter].get("index")

    @torch.no_grad()
    def _arrive(self, weight: SampledWeight, proxy: Tensor) -> None:
        """Put the gradient that backward has made of a weight's kept entries where an optimiser looks for it."""
        name, parameter, gradient = weight.name, weight.parameter, proxy.grad
        proxy.grad = None
        assert gradient is not None
        if parameter is None:
            raise RuntimeError(
                f"the forward pass of {name!r} ran within SampledGradients, which was left before its backward pass; "
                "call backward() within the context"
            )
        if ranks.size() > 1 and self.optimizer.exchange is None:
            raise RuntimeError(
                f"the kept entries of {name!r} are this rank's alone, which nothing would average over the ranks; "
                "enter SparseExchange(optimizer) too, or leave SampledGradients out"
            )
        if parameter.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"the kept entries of {name!r} are drawn by the host before each step, which a CUDA graph would not "
                "repeat; capture the step without SampledGradients"
            )
        weight.pending = False
        vector, there = gradient[: weight.kept], parameter.grad
        if there is None:
            parameter.grad = KeptGradient(KeptEntries(name, vector, weight.draw.current), parameter)
        elif isinstance(there, KeptGradient):
            there.entries.add(vector, weight.draw.current)
        else:
            raise RuntimeError(
                f"{name!r} has a dense gradient, to which its kept entries cannot be added; if the weight is used "
                "outside of its layer too, as by F.linear(x, layer.weight), call the layer instead, or leave "
                "SampledGradients out"
            )

    def samples(self, name: str) -> bool:
        return name in self._weights

    def check(self) -> None:
        """Raise before a step changes anything, if it cannot be taken with the gradients that are there."""
        self._refuse_dense()
        for draw in self._draws.values():
            if draw.keep != draw.needed:
                draw.changed()
            for weight in draw.weights:
                assert weight.parameter is not None
                _refuse_hooks(weight.name, weight.parameter)  # registered since the context was entered
                gradient = weight.parameter.grad
                if isinstance(gradient, KeptGradient):
                    gradient.entries.refuse_other(draw.current)
                elif gradient is None and weight.pending:
                    raise RuntimeError(
                        f"the gradient of {weight.name!r} was computed, but not accumulated; with SampledGradients "
                        "call backward() without inputs=, and torch.autograd.grad in steps that use the weight too"
                    )

    @torch.no_grad()
    def joined(self, part: Part, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the kept entries of some weights of a group in one vector, and their places in it."""
        draw = self._draws[part.number]
        weights = [self._weights[name] for name in part.names]
        vectors = []
        for weight, gradient in zip(weights, gradients, strict=True):
            assert isinstance(gradient, KeptGradient)
            entries = gradient.entries
            entries.refuse_other(draw.current)
            zeros = entries.drawn is None  # zero_grad(set_to_none=False), perhaps after another step
            vectors.append(entries.vector.new_zeros(weight.kept) if zeros else entries.vector)
        return torch.cat(vectors), draw.joined(weights)

    def _refuse_dense(self) -> None:
        if any(self.optimizer.gradient_share(group) is None for group in self.optimizer.param_groups):
            raise ValueError(
                f"{type(self.optimizer).__name__} needs dense gradients here, of which SampledGradients computes few; "
                "leave it out"
            )


def _refuse_hooks(name: str, parameter: Any) -> None:
    if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
        raise RuntimeError(
            f"{name!r} has a hook on its gradient, which SampledGradients does not compute; remove the hook, or leave "
            "SampledGradients out"
        )
