"""The base class of the sparse optimisers: parameters by name, compact state, steps, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mist_ext.arrival import UsedGradient
from mist_ext.distributed.shard import is_sharded, local
from mist_ext.kernels import ops
from mist_ext.optim.checks import check_complete, check_draw, check_one_device, check_parameter, check_sizes
from mist_ext.optim.groups import Exchange, NamedParameters, Part, Sampling, check_sampled, selected_groups
from mist_ext.optim.kept_gradient import KeptGradient
from mist_ext.optim.remembering import Remembering
from mist_ext.optim.saving import IDENTITY, States, identity, matched, shard_state
from mist_ext.optim.state import initial_state, own_state
from mist_ext.parameters import named_pairs, with_names
from mist_ext.selection import Selection

LARGEST = torch.finfo(torch.float32).max  # of what the ops compute with


class SparseOptimizer(Remembering, Optimizer):
    """Updates the selected entries whose gradient a step keeps; the others are neither read nor written.

    Of parameters that FSDP2 has sharded, each rank updates its own rows, by gradients that FSDP2 has reduced. The same
    entries are kept as in one process. In `state_dict` their state is a `Shard` of the whole tensor's, which
    `torch.distributed.checkpoint` can save, and load for another number of ranks.

    A subclass says which state an entry has (`STATE`, `state_dtypes`) and which op takes the step (`update`). Gradients
    become an update in one place, `update_parameters`; where an `exchange` is set, they go through it first.

    Parameters
    ----------
    defaults : dict
        The groups' options; those named in ``NOT_NEGATIVE`` are checked here.
    named_parameters, selection, seed, step, scale_code, scale_table, model, remember
        As in `SparseSGD`.
    """

    STATE: ClassVar[dict[str, torch.dtype]] = {}  # of the rule's own state, all that there may be
    NOT_NEGATIVE: tuple[str, ...] = ("lr", "weight_decay")
    _step_supports_amp_scaling = True  # GradScaler hands over its scale and its verdict as tensors

    def __init__(
        self,
        named_parameters: NamedParameters,
        selection: Selection,
        defaults: dict[str, Any],
        seed: int,
        step: int,
        scale_code: Mapping[str, Tensor] | None,
        scale_table: Tensor | None,
        model: nn.Module | None = None,
        remember: bool = False,
    ) -> None:
        check_draw(seed, step)
        self.remember = remember
        self.selection = selection
        self.seed = seed
        self.scale_table = scale_table
        self.scale_code = dict(scale_code or {})
        self._lr: dict[int, tuple[float, Tensor]] = {}
        self.exchange: Exchange | None = None
        self.sampling: Sampling | None = None
        groups = selected_groups(named_parameters, selection, model)
        pairs = named_pairs([pair for group in groups for pair in group["params"]])
        check_complete(selection, [name for name, _ in pairs])
        if unknown := sorted(self.scale_code.keys() - selection.keys()):
            raise ValueError(f"scale_code names {unknown[0]!r}, which is not in the selection")
        super().__init__(groups, defaults | {"step": torch.tensor(step, dtype=torch.int64)})

    @property
    def needs_dense_gradients(self) -> bool:
        """Whether `update` looks at gradients of entries that the keep rule drops."""
        return False

    def gradient_share(self, group: dict[str, Any]) -> float | None:
        """Return which share of the selected entries' gradients a step of a group reads; None if it reads others too.

        Those are the entries that the keep rule gives for this probability.
        """
        return None if self.needs_dense_gradients else float(group["keep"])

    def state_dtypes(self, group: dict[str, Any]) -> dict[str, torch.dtype]:
        """Return names and dtypes of the rule's own state that a group needs, one value a selected entry."""
        return self.STATE

    @abstractmethod
    def update(
        self, group: dict[str, Any], shared: dict[str, Any], state: dict[str, list[Tensor]], device: torch.device
    ) -> None:
        """Call the op with the arguments that all have in common and the rule's own state lists."""

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for an option out of range."""
        for option in self.NOT_NEGATIVE:
            if not isinstance(group[option], Tensor) and not 0 <= group[option] <= LARGEST:
                raise ValueError(f"{option} is {group[option]}, expected 0 or more, at most float32's {LARGEST:.2g}")
        if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
            raise ValueError(f"lr is a tensor of shape {list(group['lr'].shape)}, expected one number")
        ops.keep_threshold(group["keep"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters of the selection, as (name, parameter) pairs, with their own options."""
        options = {**self.defaults, **param_group}
        self.check_group(options)
        pairs = named_pairs(param_group["params"])
        for name, parameter in pairs:
            check_parameter(self.selection, name, parameter)
        check_one_device(pairs)
        names = [name for name, _ in pairs]
        device = pairs[0][1].device if pairs else torch.device("cpu")
        step = options["step"].to(device, copy=True)
        states = [initial_state(self, name, local(parameter), options) for name, parameter in pairs]
        # torch itself takes the names from the pairs, and so finds none in a group of which nothing is selected.
        own = {"params": pairs, "param_names": names, "step": step, IDENTITY: identity(self, names)}
        super().add_param_group({**param_group, **own})
        self.state.update(zip((parameter for _, parameter in pairs), states, strict=True))

    @property
    def options(self) -> list[str]:
        """The names of a group's options."""
        return sorted(self.defaults.keys() - {"differentiable"})  # torch adds it to what was copied or loaded

    @property
    def steps(self) -> int:
        """The number of applied steps. On a GPU, reading it waits for the device."""
        return int(self.param_groups[0]["step"]) if self.param_groups else 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the kept entries; a step in which GradScaler found infinities changes nothing and is not counted."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.selection.shards and getattr(self, "grad_scale", None) is not None:
            raise RuntimeError(
                "GradScaler cannot be used with sharded parameters, since each rank would look for infinities among "
                "its own gradients alone; use bfloat16, which needs no scaler"
            )
        check_sampled(self.param_groups, self.sampling)
        for number, group in enumerate(self.param_groups):
            gradients = {
                i: g for i, p in enumerate(group["params"]) if (g := p.grad) is not None and type(g) is not UsedGradient
            }
            self.update_parameters(number, gradients)
        if self.exchange is not None:
            self.exchange.finish()
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            group["step"] += 1 if found_inf is None else (found_inf == 0).to(group["step"])
        return loss

    def update_parameters(self, number: int, gradients: Mapping[int, Tensor]) -> None:
        """Update some parameters of a group from gradients, given by position in it, without counting a step.

        Call it under no_grad. An exchange takes the gradients instead, and updates once they are summed over the
        ranks; those of sharded parameters FSDP2 has reduced already.
        """
        if kept := {i: g for i, g in gradients.items() if type(g) is KeptGradient}:
            self._update_kept(number, kept)
            gradients = {i: g for i, g in gradients.items() if i not in kept}
        if not gradients:
            return
        if self.exchange is not None:
            sent = {i: g for i, g in gradients.items() if not is_sharded(g)}
            if sent:
                part = self._part(number, list(sent))
                self.exchange.take(part, part.dense(sent.values()))
            gradients = {i: g for i, g in gradients.items() if i not in sent}
        if gradients:
            part = self._part(number, list(gradients))
            self.apply(part, grad=part.dense(gradients.values()))

    def _update_kept(self, number: int, gradients: Mapping[int, Tensor]) -> None:
        """Update some parameters of a group from the gradients of their kept entries, as `update_parameters` does."""
        part = self._part(number, list(gradients))
        assert self.sampling is not None
        packed, places = self.sampling.joined(part, list(gradients.values()))
        if self.exchange is not None:
            self.exchange.take_packed(part, packed, places)
        else:
            self.apply(part, grad=[], packed=packed, places=places)

    def _part(self, number: int, chosen: list[int]) -> Part:
        group = self.param_groups[number]
        names, params = group["param_names"], group["params"]
        if len(chosen) < len(params):
            names, params = ([values[i] for i in chosen] for values in (names, params))
        check_sizes(self.selection, names, params)
        states = [self.state[p] for p in params]
        if not all(states):
            for name, state in zip(names, states, strict=True):
                if not state and self.selection[name] is not None:
                    raise RuntimeError(f"the state of {name!r} is gone, its index with it; make the optimiser anew")
        keep_rule = {
            "first": [self.selection.first(name) for name in names] if self.selection.shards else [],
            "ordinal": [self.selection.ordinal[name] for name in names],
            "threshold": ops.keep_threshold(group["keep"]),
            "seed": self.seed,
        }
        return Part(number, chosen, group, names, params, states, bool(self.selection.shards), keep_rule)

    def apply(self, part: Part, **source: Any) -> None:
        """Call the op, under no_grad, on a part of a group; ``source`` holds its gradient arguments."""
        group, names, params, states = part.group, part.names, part.params, part.states
        device = params[0].device
        dtypes = self.state_dtypes(group)
        own = {kind: own_state(part, self.selection, kind, dtype) for kind, dtype in dtypes.items()}
        masters = []
        if any("master" in s for s in states):
            nothing = torch.empty(0, device=device)
            masters = [s.get("master", nothing) for s in states]
        shared = {
            "param": part.values,
            "index": part.index,
            "master": masters,
            "scale_code": [s.get("scale_code") for s in states] if self.scale_code else [],
            "table": None if self.scale_table is None else self.scale_table.to(device),
            "lr": self._lr_tensor(part.number, group, device),
            "weight_decay": group["weight_decay"],
            "step": group["step"],
            "found_inf": getattr(self, "found_inf", None),
            "grad_scale": getattr(self, "grad_scale", None),
            **part.keep_rule,
            **source,
        }
        try:
            self.update(group, shared, own, device)
        except RuntimeError as error:
            raise RuntimeError(with_names(error, names)) from error

    def _lr_tensor(self, number: int, group: dict[str, Any], device: torch.device) -> Tensor:
        """Return the learning rate as a tensor on the device, made anew only when it changes."""
        lr = group["lr"]
        if isinstance(lr, Tensor):
            return lr.to(device, torch.float32)
        if number not in self._lr or self._lr[number][0] != lr:
            self._lr[number] = (lr, torch.full((), lr, dtype=torch.float32, device=device))
        return self._lr[number][1]

    def __getstate__(self) -> dict[str, Any]:
        own = ("selection", "seed", "scale_table", "scale_code", "remember")
        outside: dict[str, Any] = {"_lr": {}, "exchange": None, "sampling": None}
        return super().__getstate__() | {name: self.__dict__[name] for name in own} | outside

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dict with `identity` in every group, and the state of sharded parameters as `Shard`."""
        own = {id(p) for group in self.param_groups for p in group["params"]}
        for parameter in [p for p, state in self.state.items() if not state and id(p) not in own]:
            del self.state[parameter]  # reading the state of a parameter that is not selected makes an empty one
        handle = self.register_state_dict_post_hook(lambda _, state: shard_state(self, state), prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, or a checkpoint of any number of ranks.

        Groups and parameters are matched by name. Options such as the learning rate become those of the state, as in
        torch; kind of optimiser, seed, scale table and selection must be the same. Every tensor keeps its own dtype:
        torch would cast it to its parameter's, which ruins an int32 index or a float32 master of a bfloat16 model.

        Raises
        ------
        ValueError
            If the state does not fit; the message has the difference, and nothing is changed.
        """
        states: States = {}

        def match(_: Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            groups, found = matched(self, given)
            states.update(found)
            return {**given, "state": {}, "param_groups": groups}

        def put(_: Optimizer) -> None:
            self.state.update(states)

        # The last of the hooks before torch's own loading, and the first behind it: users' hooks see whole states.
        handles = [
            self.register_load_state_dict_pre_hook(match),
            self.register_load_state_dict_post_hook(put, prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()
