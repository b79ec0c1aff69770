"""What every sparse optimiser shares: parameters by name, compact state, the draw of a step, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from mist_ext import ops
from mist_ext.distributed.shard import Shard, is_sharded, local
from mist_ext.distributed.stored import taken
from mist_ext.selection import Selection, named

NamedParameters = Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
FLOATING = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Part:
    """Some parameters of a group, all of which have a gradient."""

    number: int  # of the group
    chosen: list[int]  # places in it
    group: dict[str, Any]
    names: list[str]
    params: list[Tensor]
    states: list[dict[str, Tensor]]
    drawing: dict[str, Any]  # the arguments of all ops by which entries are drawn, but for the step

    @property
    def gradients(self) -> list[Tensor]:
        """Their gradients, each contiguous."""
        return _contiguous(self.names, [local(p.grad) for p in self.params])  # type: ignore[arg-type]

    @property
    def index(self) -> list[Tensor | None]:
        """Their selected entries."""
        return [state.get("index") for state in self.states]


class Exchange(Protocol):
    """Makes gradients of several processes one, before they become an update."""

    def take(self, part: Part) -> None:
        """Take up the gradients of some parameters of a group."""

    def finish(self) -> None:
        """Update all that was taken up since the last step."""


class SparseOptimizer(Optimizer):
    """Updates the selected entries whose gradient a step keeps; the others are neither read nor written.

    Of parameters that FSDP2 has sharded, each rank updates its own rows, by gradients that FSDP2 has reduced: the same
    entries by the same draws as one process. In `state_dict` their state is a `Shard` of the whole tensor's, which
    `torch.distributed.checkpoint` can save, and load for another number of ranks.

    A subclass says which state an entry has (`state_dtypes`) and which op takes the step (`update`). Gradients become
    an update in one place, `update_parameters`; where an `exchange` is set, they go through it first.

    Parameters
    ----------
    defaults : dict
        The groups' options; those named in ``NOT_NEGATIVE`` are checked here.
    named_parameters, selection, seed, step, scale_code, scale_table
        As in `SparseSGD`.
    """

    NOT_NEGATIVE: tuple[str, ...] = ("lr", "weight_decay")
    NEEDS_DENSE_GRADIENTS = False  # whether `update` looks at gradients that the keep rule drops
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
    ) -> None:
        self.selection = selection
        self.seed = check_seed(seed)
        self._scale_code = dict(scale_code or {})
        self._scale_table = scale_table
        self._lr: dict[int, tuple[float, Tensor]] = {}
        self.exchange: Exchange | None = None
        groups = _groups(named_parameters, selection)
        super().__init__(groups, defaults | {"step": torch.tensor(step, dtype=torch.int64)})
        missing = [name for name in selection if name not in {n for g in self.param_groups for n in g["param_names"]}]
        if missing:
            raise ValueError(f"the selection names {missing[0]!r}, which is not among the parameters given")

    @abstractmethod
    def state_dtypes(self, group: dict[str, Any]) -> dict[str, torch.dtype]:
        """Names and dtypes of the rule's own state, one value a selected entry."""

    @abstractmethod
    def update(
        self, group: dict[str, Any], shared: dict[str, Any], state: dict[str, list[Tensor]], device: torch.device
    ) -> None:
        """Call the op with the arguments that all have in common and the rule's own state lists."""

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for an option out of range."""
        for option in self.NOT_NEGATIVE:
            if not isinstance(group[option], Tensor) and not group[option] >= 0:
                raise ValueError(f"{option} is {group[option]}, expected 0 or more")
        ops.keep_threshold(group["keep"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters of the selection, as (name, parameter) pairs, with their own options."""
        self.check_group({**self.defaults, **param_group})
        pairs = list(param_group["params"])
        if any(not isinstance(pair, tuple) for pair in pairs):
            raise ValueError(
                "parameters must be given with their names: model.named_parameters(), or a group of such pairs"
            )
        for name, parameter in pairs:
            self._check_parameter(name, parameter)
        _check_together(pairs)
        super().add_param_group({**param_group, "params": pairs})
        group = self.param_groups[-1]
        group.setdefault("param_names", [])  # torch leaves them out where there is no parameter
        device = group["params"][0].device if group["params"] else torch.device("cpu")
        group["step"] = group["step"].to(device, copy=True)
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            self.state[parameter] = self._initial_state(name, local(parameter), group)

    def _check_parameter(self, name: str, parameter: Tensor) -> None:
        if name not in self.selection:
            raise ValueError(f"{name!r} is not in the selection; make an optimiser with a selection that names it")
        check_shape(self.selection, name, parameter)
        if not parameter.is_contiguous():
            raise ValueError(
                f"{name!r} is not contiguous; make it so with `parameter.data = parameter.data.contiguous()`"
            )
        if parameter.dtype not in FLOATING:
            raise ValueError(f"{name!r} is {parameter.dtype}, expected float32, bfloat16 or float16")

    @torch.no_grad()
    def _initial_state(self, name: str, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        index = self.selection[name]
        count = self.selection.count(name)
        state = {}
        if index is not None:
            state["index"] = index.to(parameter.device, copy=True)
        for kind, dtype in self.state_dtypes(group).items():
            state[kind] = torch.zeros(count, dtype=dtype, device=parameter.device)
        if parameter.dtype != torch.float32:
            flat = parameter.detach().view(-1)
            state["master"] = (flat if index is None else flat[state["index"].long()]).float()
        if (code := self._scale_code.get(name)) is not None:
            if code.shape != (count,) or code.dtype != torch.uint8:
                raise ValueError(f"scale_code of {name!r} is {code.dtype} {list(code.shape)}, expected uint8 [{count}]")
            if self._scale_table is None or self._scale_table.shape != (256,):
                raise ValueError("scale_code needs scale_table, float32 [256], one factor for each code")
            state["scale_code"] = code.to(parameter.device, copy=True)
        return state

    @property
    def steps(self) -> int:
        """The number of applied steps. On a GPU, reading it waits for the device."""
        return int(self.param_groups[0]["step"]) if self.param_groups else 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Draw and update; a step that GradScaler found infinite changes nothing and is not counted."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.selection.cuts and getattr(self, "grad_scale", None) is not None:
            raise RuntimeError(
                "GradScaler cannot be used with sharded parameters, since each rank would look for infinities among "
                "its own gradients alone; use bfloat16, which needs no scaler"
            )
        for number, group in enumerate(self.param_groups):
            self.update_parameters(number, [i for i, p in enumerate(group["params"]) if p.grad is not None])
        if self.exchange is not None:
            self.exchange.finish()
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            group["step"] += 1 if found_inf is None else (found_inf == 0).to(group["step"])
        return loss

    @torch.no_grad()
    def update_parameters(self, number: int, chosen: list[int]) -> None:
        """Update some parameters of a group, by their places in it, from their gradients; count no step.

        An exchange takes the gradients up instead, and updates when the other ranks' have come; but not those of
        sharded parameters, which FSDP2 has reduced.
        """
        if not chosen:
            return
        params = self.param_groups[number]["params"]
        sent = [] if self.exchange is None else [i for i in chosen if not is_sharded(params[i])]
        if self.exchange is not None and sent:
            self.exchange.take(self._part(number, sent))
        if len(sent) < len(chosen):
            part = self._part(number, [i for i in chosen if i not in sent])
            self.apply(part, grad=part.gradients)

    def _part(self, number: int, chosen: list[int]) -> Part:
        group = self.param_groups[number]
        names, params = group["param_names"], group["params"]
        if len(chosen) < len(params):
            names, params = ([values[i] for i in chosen] for values in (names, params))
        states = [self.state[p] for p in params]
        if not all(states):
            for name, state in zip(names, states, strict=True):
                if not state and self.selection[name] is not None:
                    raise RuntimeError(f"the state of {name!r} is gone, its index with it; make the optimiser anew")
        drawing = {
            "first": [self.selection.first(name) for name in names] if self.selection.cuts else [],
            "ordinal": [self.selection.ordinal[name] for name in names],
            "threshold": ops.keep_threshold(group["keep"]),
            "seed": self.seed,
        }
        return Part(number, chosen, group, names, params, states, drawing)

    @torch.no_grad()
    def apply(self, part: Part, **source: Any) -> None:
        """One op call; `source` says where it finds the gradients."""
        group, names, params, states = part.group, part.names, part.params, part.states
        device = params[0].device
        dtypes = self.state_dtypes(group)
        own = {kind: self._own(kind, dtype, names, params, states) for kind, dtype in dtypes.items()}
        masters = []
        if any("master" in s for s in states):
            nothing = torch.empty(0, device=device)
            masters = [s.get("master", nothing) for s in states]
        shared = {
            "param": [local(p) for p in params],
            "index": part.index,
            "master": masters,
            "scale_code": [s.get("scale_code") for s in states] if any("scale_code" in s for s in states) else [],
            "table": None if self._scale_table is None else self._scale_table.to(device),
            "lr": self._lr_tensor(part.number, group, device),
            "weight_decay": group["weight_decay"],
            "step": group["step"],
            "found_inf": getattr(self, "found_inf", None),
            "grad_scale": getattr(self, "grad_scale", None),
            **part.drawing,
            **source,
        }
        try:
            self.update(group, shared, own, device)
        except RuntimeError as error:
            raise RuntimeError(named(error, names)) from error

    def _own(
        self, kind: str, dtype: torch.dtype, names: list[str], params: list[Tensor], states: list[dict[str, Tensor]]
    ) -> list[Tensor]:
        """One of the rule's own lists; with zeros where it has none yet, since a scheduler switched momentum on."""
        try:
            return [state[kind] for state in states]
        except KeyError:
            for name, p, state in zip(names, params, states, strict=True):
                if kind not in state:
                    state[kind] = torch.zeros(self.selection.count(name), dtype=dtype, device=p.device)
        return [state[kind] for state in states]

    def _lr_tensor(self, number: int, group: dict[str, Any], device: torch.device) -> Tensor:
        """The learning rate on the device; made anew only when it changes, so that a step copies nothing there."""
        lr = group["lr"]
        if isinstance(lr, Tensor):
            return lr.to(device, torch.float32)
        if number not in self._lr or self._lr[number][0] != lr:
            self._lr[number] = (lr, torch.full((), lr, dtype=torch.float32, device=device))
        return self._lr[number][1]

    def __getstate__(self) -> dict[str, Any]:
        own = ("selection", "seed", "_scale_code", "_scale_table")
        return super().__getstate__() | {name: self.__dict__[name] for name in own} | {"_lr": {}, "exchange": None}

    def state_dict(self) -> dict[str, Any]:
        """As torch's; the state of a sharded parameter as parts of the whole tensor's."""
        whole = super().state_dict()
        names = self._saved_names(whole)
        for key, state in whole["state"].items():
            name = names[key]
            if (cut := self.selection.cuts.get(name)) is not None:
                whole["state"][key] = {kind: Shard(values, cut.first, cut.count) for kind, values in state.items()}
                if "index" in state:
                    whole["state"][key]["index"] = self.selection.global_index(name)
        return whole

    @staticmethod
    def _saved_names(state_dict: dict[str, Any]) -> dict[int, str]:
        groups = state_dict["param_groups"]
        return {key: name for group in groups for key, name in zip(group["params"], group["param_names"], strict=True)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, every tensor in its own dtype, or what a checkpoint of any ranks holds.

        torch casts state to its parameter's dtype, which would ruin an int32 index or a float32 master of a bfloat16
        model, so the tensors are put in place here.
        """
        for number, saved in enumerate(state_dict["param_groups"]):
            if missing := sorted(self.defaults.keys() - saved.keys()):
                raise ValueError(f"group {number} has no {missing[0]!r}: the state is another kind of optimiser's")
        super().load_state_dict({**state_dict, "state": {}})
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for name, parameter, key in zip(group["param_names"], group["params"], saved["params"], strict=True):
                first, count = self.selection.first(name), self.selection.count(name)
                own = {kind: taken(value, first, count) for kind, value in state_dict["state"][key].items()}
                if "index" in own and name in self.selection.cuts:
                    own["index"] = own["index"] - self.selection.cuts[name].begin
                self.state[parameter] = {kind: value.to(parameter.device, copy=True) for kind, value in own.items()}
            if group["params"]:
                group["step"] = saved["step"].to(group["params"][0].device, copy=True)


def check_seed(seed: int) -> int:
    """The seed, or ValueError if it does not fit the keep rule."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}, expected 0 to 2^63 - 1")
    return seed


def check_shape(selection: Selection, name: str, parameter: Tensor) -> None:
    """Raise ValueError unless the parameter has the shape it was selected by."""
    if is_sharded(parameter) != (name in selection.cuts):
        how = ("sharded", "whole") if is_sharded(parameter) else ("whole", "sharded")
        raise ValueError(
            f"{name!r} is {how[0]}, but was selected {how[1]}; cut the selection of whole tensors by "
            "selection.local(model.named_parameters()) once the model is sharded"
        )
    shape, selected = list(local(parameter).shape), list(selection.shape[name])
    if shape != selected:
        raise ValueError(f"{name!r} has shape {shape}, but was selected as {selected}")


def _check_together(pairs: list[tuple[str, Tensor]]) -> None:
    """Raise ValueError where a group names one parameter twice, or has parameters on several devices."""
    first: dict[int, str] = {}
    for name, parameter in pairs:
        if id(parameter) in first:
            raise ValueError(
                f"{first[id(parameter)]!r} and {name!r} are the same parameter (tied weights); give and select it "
                "under one name, as model.named_parameters() does"
            )
        first[id(parameter)] = name
        if parameter.device != pairs[0][1].device:
            raise ValueError(
                f"{name!r} is on {parameter.device}, but {pairs[0][0]!r} of the same group is on {pairs[0][1].device}; "
                "make a parameter group for each device"
            )


def _contiguous(names: list[str], grads: list[Any]) -> list[Tensor]:
    try:
        return [g if g.is_contiguous() else g.contiguous() for g in grads]
    except RuntimeError as error:
        odd = next((name for name, g in zip(names, grads, strict=True) if g.layout is not torch.strided), None)
        if odd is None:
            raise
        raise RuntimeError(f"the gradient of {odd!r} is a sparse tensor, expected a dense one") from error


def _groups(named_parameters: NamedParameters, selection: Selection) -> list[dict[str, Any]]:
    """Parameter groups of (name, parameter) pairs, without the parameters that are not selected."""
    given = list(named_parameters)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    chosen = []
    for group in groups:
        assert isinstance(group, dict)
        pairs = [pair for pair in group["params"] if not isinstance(pair, tuple) or pair[0] in selection]
        chosen.append({**group, "params": pairs})
    return chosen
