"""Optimisers that update only what a selection selects and a step's draw keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mist_ext import ops
from mist_ext.selection import Selection, named

NamedParameters = Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]


def _check_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}, expected 0 to 2^63 - 1")
    return seed


def _check_shape(selection: Selection, name: str, parameter: Tensor) -> None:
    shape, selected = list(parameter.shape), list(selection.shape[name])
    if shape != selected:
        raise ValueError(f"{name!r} has shape {shape}, but was selected as {selected}")


class SparseSGD(Optimizer):
    """SGD with momentum for the selected entries whose gradient a step keeps; the others are neither read nor written.

    Each step draws for every selected entry whether its gradient is kept. A dropped entry keeps its value and its
    momentum, and no weight decay is applied to it. For a kept one the order is `torch.optim.SGD`'s: decay, momentum,
    update. With ``keep=1`` and a selection of everything this is `torch.optim.SGD`.

    State is compact: an int32 position and a float32 momentum for each selected entry, and for 16-bit parameters a
    float32 master copy of it, so that small updates are not rounded away.

    Parameters
    ----------
    named_parameters : iterable
        ``model.named_parameters()``, or groups ``{"params": [(name, parameter), ...], "lr": ...}``. Parameters that the
        selection does not name are left out.
    selection : Selection
    lr : float or Tensor
        A tensor is read on the device at every step, for CUDA graphs.
    momentum, weight_decay : float
    keep : float
        Probability that a selected entry's gradient is kept in a step, 0 to 1.
    seed : int
        The draws are a pure function of seed, step, the tensor's number in the selection and the entry.
    step : int
        The number of steps already applied, where a run goes on with a new optimiser.
    scale_code : mapping of str to Tensor, optional
        By parameter name: uint8, one code a selected entry. A gradient is multiplied by ``scale_table[code]``.
    scale_table : Tensor, optional
        float32, ``[256]``.

    Raises
    ------
    ValueError
        For a setting out of range, a selected parameter that is missing or has another shape.
    """

    _step_supports_amp_scaling = True  # GradScaler hands over its scale and its verdict as tensors

    def __init__(
        self,
        named_parameters: NamedParameters,
        selection: Selection,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        keep: float = 0.1,
        seed: int = 0,
        step: int = 0,
        scale_code: Mapping[str, Tensor] | None = None,
        scale_table: Tensor | None = None,
    ) -> None:
        self.selection = selection
        self.seed = _check_seed(seed)
        self._scale_code = dict(scale_code or {})
        self._scale_table = scale_table
        self._lr: dict[int, tuple[float, Tensor]] = {}
        groups = _groups(named_parameters, selection)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "keep": keep}
        super().__init__(groups, defaults | {"step": torch.tensor(step, dtype=torch.int64)})
        missing = [name for name in selection if name not in {n for g in self.param_groups for n in g["param_names"]}]
        if missing:
            raise ValueError(f"the selection names {missing[0]!r}, which is not among the parameters given")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters of the selection, as (name, parameter) pairs, with their own options."""
        group = {**self.defaults, **param_group}
        for option in ("lr", "momentum", "weight_decay"):
            if not isinstance(group[option], Tensor) and group[option] < 0:
                raise ValueError(f"{option} is {group[option]}, expected 0 or more")
        ops.keep_threshold(group["keep"])
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            self._check_parameter(name, parameter)
        device = group["params"][0].device if group["params"] else torch.device("cpu")
        group["step"] = group["step"].to(device, copy=True)
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            self.state[parameter] = self._initial_state(name, parameter, group["momentum"])

    def _check_parameter(self, name: str, parameter: Tensor) -> None:
        _check_shape(self.selection, name, parameter)
        if not parameter.is_contiguous():
            raise ValueError(
                f"{name!r} is not contiguous; make it so with `parameter.data = parameter.data.contiguous()`"
            )
        if parameter.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"{name!r} is {parameter.dtype}, expected float32, bfloat16 or float16")

    @torch.no_grad()
    def _initial_state(self, name: str, parameter: Tensor, momentum: float) -> dict[str, Tensor]:
        index = self.selection[name]
        count = self.selection.count(name)
        state = {}
        if index is not None:
            state["index"] = index.to(parameter.device, copy=True)
        if momentum:
            state["momentum"] = torch.zeros(count, dtype=torch.float32, device=parameter.device)
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
        found_inf = getattr(self, "found_inf", None)
        for number, group in enumerate(self.param_groups):
            self._apply(number, group, found_inf)
            skipped = 0 if found_inf is None else (found_inf != 0).to(group["step"])
            group["step"] += 1 - skipped
        return loss

    def _apply(self, number: int, group: dict[str, Any], found_inf: Tensor | None) -> None:
        pairs = [(n, p) for n, p in zip(group["param_names"], group["params"], strict=True) if p.grad is not None]
        if not pairs:
            return
        names = [name for name, _ in pairs]
        params = [p for _, p in pairs]
        for name, p in pairs:
            if p.grad.is_sparse:
                raise RuntimeError(f"the gradient of {name!r} is a sparse tensor, expected a dense one")
        states = [self.state[p] for p in params]
        for state, name in zip(states, names, strict=True):
            if group["momentum"] and "momentum" not in state:  # switched on by a scheduler
                state["momentum"] = torch.zeros(self.selection.count(name), device=params[0].device)
        device = params[0].device
        masters = []
        if any(p.dtype != torch.float32 for p in params):
            masters = [s["master"] if "master" in s else torch.empty(0, device=device) for s in states]
        table = None if self._scale_table is None else self._scale_table.to(device)
        try:
            ops.drop_apply_sgd_(
                params,
                [p.grad.contiguous() for p in params],
                [s.get("index") for s in states],
                [s["momentum"] for s in states] if group["momentum"] else [],
                masters,
                [s.get("scale_code") for s in states],
                table,
                [self.selection.ordinal(name) for name in names],
                lr=self._lr_tensor(number, group, device),
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
                threshold=ops.keep_threshold(group["keep"]),
                seed=self.seed,
                step=group["step"],
                found_inf=found_inf,
                grad_scale=getattr(self, "grad_scale", None),
            )
        except RuntimeError as error:
            raise RuntimeError(named(error, names)) from error

    def _lr_tensor(self, number: int, group: dict[str, Any], device: torch.device) -> Tensor:
        """The learning rate on the device; made anew only when it changes, so that a step copies nothing there."""
        lr = group["lr"]
        if isinstance(lr, Tensor):
            return lr.to(device, torch.float32)
        if number not in self._lr or self._lr[number][0] != lr:
            self._lr[number] = (lr, torch.full((), lr, dtype=torch.float32, device=device))
        return self._lr[number][1]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, every tensor in its own dtype.

        torch casts state to its parameter's dtype, which would ruin an int32 index or a float32 master of a bfloat16
        model, so the tensors are put in place here.
        """
        super().load_state_dict({**state_dict, "state": {}})
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for parameter, key in zip(group["params"], saved["params"], strict=True):
                self.state[parameter] = {
                    kind: value.to(parameter.device, copy=True) for kind, value in state_dict["state"][key].items()
                }
            if group["params"]:
                group["step"] = saved["step"].to(group["params"][0].device, copy=True)


class MaskedGradient:
    """Keeps the drawn entries of the selected gradients and makes the others zero, for use before any torch optimiser.

    This is the published dynamics: the optimiser behind it is dense, so momentum and weight decay still move entries
    whose gradient was dropped. It draws the same entries as `SparseSGD` with the same seed and selection.

    Parameters
    ----------
    named_parameters, selection, keep, seed, step, scale_code, scale_table
        As in `SparseSGD`.

    Examples
    --------
    >>> masked = MaskedGradient(model.named_parameters(), selection, keep=0.1)
    >>> loss.backward()
    >>> masked.apply_()
    >>> optimizer.step()
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        selection: Selection,
        keep: float = 0.1,
        seed: int = 0,
        step: int = 0,
        scale_code: Mapping[str, Tensor] | None = None,
        scale_table: Tensor | None = None,
    ) -> None:
        parameters = dict(named_parameters)
        for name in selection:
            if name not in parameters:
                raise ValueError(f"the selection names {name!r}, which is not among the parameters given")
            _check_shape(selection, name, parameters[name])
        self.selection = selection
        self.parameters = {name: parameters[name] for name in selection}
        self.threshold = ops.keep_threshold(keep)
        self.seed = _check_seed(seed)
        device = next(iter(self.parameters.values())).device if self.parameters else torch.device("cpu")
        self._step = torch.tensor(step, dtype=torch.int64, device=device)
        self._index = {name: None if index is None else index.to(device) for name, index in selection.items()}
        self._code = {name: code.to(device) for name, code in (scale_code or {}).items()}
        self._table = None if scale_table is None else scale_table.to(device)

    @property
    def steps(self) -> int:
        """The number of draws so far. On a GPU, reading it waits for the device."""
        return int(self._step)

    @torch.no_grad()
    def apply_(self) -> None:
        """Mask the gradients that are there, in place; the next call draws anew."""
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        grads: list[Tensor] = []
        for name in names:
            gradient = self.parameters[name].grad
            assert gradient is not None
            grads.append(gradient.contiguous())
            self.parameters[name].grad = grads[-1]
        try:
            ops.mask_(
                grads,
                [self._index[name] for name in names],
                [self._code.get(name) for name in names],
                self._table,
                [self.selection.ordinal(name) for name in names],
                threshold=self.threshold,
                seed=self.seed,
                step=self._step,
            )
        except RuntimeError as error:
            raise RuntimeError(named(error, names)) from error
        self._step += 1

    def state_dict(self) -> dict[str, int]:
        """The number of draws so far."""
        return {"step": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on drawing where the saved one stopped."""
        self._step.fill_(state["step"])


def _groups(named_parameters: NamedParameters, selection: Selection) -> list[dict[str, Any]]:
    """Parameter groups of (name, parameter) pairs, without the parameters that are not selected."""
    given = list(named_parameters)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    chosen = []
    for group in groups:
        assert isinstance(group, dict)
        pairs = list(group["params"])
        if any(not isinstance(pair, tuple) for pair in pairs):
            raise ValueError(
                "parameters must be given with their names: model.named_parameters(), or a group of such pairs"
            )
        chosen.append({**group, "params": [(name, p) for name, p in pairs if name in selection]})
    return chosen
