"""Parameter groups with names, and the part of a group that an op call updates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from mist_ext.distributed.shard import local
from mist_ext.optim.kept_gradient import KeptGradient
from mist_ext.parameters import EXPECTED, dense, named_pairs
from mist_ext.selection import Selection

NamedParameters = Iterable[tuple[str, Tensor]] | Iterable[Tensor] | Iterable[dict[str, Any]]


@dataclass
class Part:
    """Some parameters of a group, all of which have a gradient."""

    number: int  # of the group
    chosen: list[int]  # positions in it
    group: dict[str, Any]
    names: list[str]
    params: list[Tensor]
    states: list[dict[str, Tensor]]
    sharded: bool  # whether any parameter of the optimiser is
    keep_rule: dict[str, Any]  # the arguments of all ops that decide which entries are kept, but for the step

    @property
    def values(self) -> list[Tensor]:
        """The parameters, or this rank's rows of sharded ones."""
        return self.params if not self.sharded else [local(p) for p in self.params]

    def dense(self, gradients: Iterable[Tensor]) -> list[Tensor]:
        """Return the gradients contiguous, of sharded parameters this rank's rows."""
        there = [local(g) for g in gradients] if self.sharded else list(gradients)
        try:
            if all(map(Tensor.is_contiguous, there)):
                return there
        except RuntimeError:  # a sparse tensor has no such thing
            pass
        return [dense(name, g) for name, g in zip(self.names, there, strict=True)]

    @property
    def index(self) -> list[Tensor | None]:
        """The positions of the selected entries; None for a fully selected parameter."""
        return [state.get("index") for state in self.states]


class Exchange(Protocol):
    """What combines the gradients of several processes before the update (`SparseExchange`)."""

    def take(self, part: Part, gradients: list[Tensor]) -> None:
        """Take the gradients of some parameters of a group."""

    def take_packed(self, part: Part, packed: Tensor, places: Tensor) -> None:
        """Take the gradients of the kept entries of some parameters of a group, as `ops.pack_` packs them."""

    def finish(self) -> None:
        """Update all parameters whose gradients were taken since the last step."""


class Sampling(Protocol):
    """What computes the gradients of kept entries alone (`SampledGradients`)."""

    def samples(self, name: str) -> bool:
        """Return whether it computes those of this parameter."""

    def check(self) -> None:
        """Raise before a step changes anything, if it cannot be taken with the gradients that are there."""

    def joined(self, part: Part, gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the kept entries of some parameters of a group in one vector, and their places in it."""


def check_sampled(groups: Iterable[dict[str, Any]], sampling: Sampling | None) -> None:
    """Raise RuntimeError before a step changes anything, if a gradient was sampled that it cannot be taken with."""
    for group in groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            own = sampling is not None and sampling.samples(name)
            if type(parameter.grad) is KeptGradient and not own:
                raise RuntimeError(
                    f"the gradient of {name!r} was sampled within SampledGradients, which was left or is another "
                    "optimiser's; step within it, by its optimiser"
                )
    if sampling is not None:
        sampling.check()


def selected_groups(given: NamedParameters, selection: Selection, model: nn.Module | None) -> list[dict[str, Any]]:
    """Return parameter groups of (name, parameter) pairs, without the parameters that are not selected."""
    listed = given if isinstance(given, Tensor | nn.Module) else list(given)
    groups = listed if isinstance(listed, list) and listed and isinstance(listed[0], dict) else [{"params": listed}]
    chosen = []
    for group in groups:
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"a parameter group is {group!r}, expected a dict with 'params'")
        params = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
        chosen.append({**group, "params": selected_pairs(params, selection, model)})
    return chosen


def selected_pairs(given: Iterable[Any], selection: Selection, model: nn.Module | None = None) -> list[Any]:
    """Return the selected parameters with their names; names that are missing are looked up in the model."""
    if isinstance(given, Tensor | nn.Module):
        raise TypeError(f"{EXPECTED}; this is a {type(given).__name__}")
    name_of = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    pairs = []
    for pair in given:
        if isinstance(pair, Tensor):
            if model is None:
                raise TypeError(f"{EXPECTED}, or with model=model, in which their names are looked up")
            if id(pair) not in name_of:
                raise ValueError(f"a parameter of shape {list(pair.shape)} is not one of the model's")
            pair = (name_of[id(pair)], pair)
        if not isinstance(pair, tuple) or pair[0] in selection:
            pairs.append(pair)
    return named_pairs(pairs)
