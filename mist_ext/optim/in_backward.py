"""Steps during backward, so that the dense gradients of a whole model never exist together."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mist_ext.arrival import Arrivals, UsedGradient
from mist_ext.distributed import ranks
from mist_ext.distributed.shard import is_sharded
from mist_ext.optim.sparse import SparseOptimizer
from mist_ext.optim.unwrapped import unwrapped


class InBackward:
    """Let a sparse optimiser update each block of a network as soon as backward has made its gradients.

    While it is entered as a context, every gradient is freed at once; ``optimizer.step()`` then updates what is left,
    such as a block of which only a part was used, and counts the step. The bits are those of stepping after backward.
    A block is what a parameter's name begins with, up to its first number: ``blocks.3`` of ``blocks.3.mlp.fc1.weight``.

    Since no gradient outlives its block, nothing works that needs them all: clipping, norms, `GradScaler`, a second
    backward pass before the step. From its block's update to the step a gradient is a `UsedGradient`, with which any
    computation raises `RuntimeError`; step after backward for those, or enter `SampledGradients` instead.

    Parameters
    ----------
    optimizer : SparseOptimizer
        `SparseSGD` or `SparseAdamW`, or what accelerate made of one.

    Raises
    ------
    TypeError
        For another optimiser.
    RuntimeError
        When it is entered: if a parameter has a gradient already, or another context takes its gradients. In backward:
        if there are several ranks, and neither `SparseExchange` nor FSDP2 makes their gradients one.

    Examples
    --------
    >>> with InBackward(optimizer):
    ...     for images, labels in loader:
    ...         loss_function(model(images), labels).backward()
    ...         optimizer.step()
    """

    def __init__(self, optimizer: SparseOptimizer) -> None:
        self.optimizer = unwrapped(optimizer, "InBackward")
        self._arrivals = Arrivals("InBackward")
        self._handles: list[RemovableHandle] = []
        # While the context is entered, for the parameters that require a gradient:
        self._position: dict[str, tuple[int, int]] = {}  # numbers of group and parameter
        self._used: dict[str, UsedGradient] = {}
        self._members: dict[str, list[str]] = {}  # the parameters of a block
        self._arrived: dict[str, set[str]] = {}
        self._streams: dict[str, set[torch.cuda.Stream]] = {}

    def __enter__(self) -> InBackward:
        parameters, self._position, self._members = {}, {}, {}
        for number, group in enumerate(self.optimizer.param_groups):
            for i, (name, parameter) in enumerate(zip(group["param_names"], group["params"], strict=True)):
                if parameter.requires_grad:
                    parameters[name], self._position[name] = parameter, (number, i)
                    self._members.setdefault(block_name(name), []).append(name)
        self._arrivals.watch(parameters, self._arrive)
        self._used = {name: UsedGradient(name, parameter) for name, parameter in parameters.items()}
        self._arrived = {block: set() for block in self._members}
        self._streams = {block: set() for block in self._members}
        self._handles.append(self.optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(self.optimizer.register_step_post_hook(self._after_step))
        return self

    def __exit__(self, *_: object) -> None:
        self._arrivals.end()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if isinstance(parameter.grad, UsedGradient):
                    parameter.grad = None

    @torch.no_grad()
    def _arrive(self, name: str, parameter: Tensor) -> None:
        block = block_name(name)
        arrived = self._arrived[block]
        if name in arrived:
            raise RuntimeError(
                f"a second gradient of {name!r} arrived before optimizer.step(): in-backward steps work with one "
                "backward pass a step and with non-reentrant checkpointing; step after backward for anything else"
            )
        arrived.add(name)
        if parameter.is_cuda:
            self._streams[block].add(torch.cuda.current_stream(parameter.device))
        if len(arrived) == len(self._members[block]):
            self._refuse_own_gradients(name, parameter)
            self._wait_for_others(block)
            for number in sorted({self._position[member][0] for member in arrived}):
                params = self.optimizer.param_groups[number]["params"]
                positions = {i: member for member in arrived for n, i in [self._position[member]] if n == number}
                gradients = {i: g for i in sorted(positions) if (g := params[i].grad) is not None}
                self.optimizer.update_parameters(number, gradients)
                for i, member in positions.items():
                    params[i].grad = self._used[member]

    def _refuse_own_gradients(self, name: str, parameter: Tensor) -> None:
        """Raise RuntimeError where nothing reduces the ranks' gradients before a block's update.

        DistributedDataParallel does so only once they have arrived.
        """
        if ranks.size() > 1 and self.optimizer.exchange is None and not is_sharded(parameter):
            raise RuntimeError(
                f"{name!r} would be updated by this rank's gradient alone, before the ranks' are averaged, so that "
                "their models part; enter SparseExchange(optimizer) too, or leave InBackward out"
            )

    def _wait_for_others(self, block: str) -> None:
        """Let a block's update wait for the other CUDA streams that made its gradients.

        The gradients' memory must not be given to other work of their streams before the update has read it.
        """
        if len(self._streams[block]) < 2:
            return
        for number, i in (self._position[name] for name in self._members[block]):
            parameter = self.optimizer.param_groups[number]["params"][i]
            current = torch.cuda.current_stream(parameter.device)
            assert parameter.grad is not None
            parameter.grad.record_stream(current)
            for other in self._streams[block]:
                if other.device == current.device and other != current:
                    current.wait_stream(other)

    def _before_step(self, optimizer: Any, *_: object) -> None:
        if getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                "GradScaler cannot be used with in-backward steps, which were taken before it looked for infinities; "
                "use bfloat16, which needs no scaler, step after backward, or enter SampledGradients instead"
            )

    def _after_step(self, *_: object) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        for block, arrived in self._arrived.items():
            arrived.clear()
            self._streams[block].clear()


def block_name(name: str) -> str:
    """Return a parameter's block: its name up to the first number, or the name of its module."""
    numbered = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    return numbered[0] if numbered else name.rpartition(".")[0]
