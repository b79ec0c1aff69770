"""Steps taken while backward runs, so that the dense gradients of a whole model never exist together."""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mist_ext.optim.clipping import RefusedClipping
from mist_ext.optim.sparse import SparseOptimizer


class InBackward:
    """Lets a sparse optimiser update each block of a network as soon as backward has made its gradients.

    While it is entered as a context, every gradient is freed at once; ``optimizer.step()`` then updates what is left,
    such as a block of which only a part was used, and counts the step. The bits are those of stepping after backward.
    A block is what a parameter's name begins with, up to its first number: ``blocks.3`` of ``blocks.3.mlp.fc1.weight``.

    Since no gradient outlives its block, nothing works that needs them all: clipping by the global norm, `GradScaler`,
    a second backward pass before the step. Each raises `RuntimeError`; step after backward for those.

    Parameters
    ----------
    optimizer : SparseOptimizer
        `SparseSGD` or `SparseAdamW`.

    Examples
    --------
    >>> with InBackward(optimizer):
    ...     for images, labels in loader:
    ...         loss_function(model(images), labels).backward()
    ...         optimizer.step()
    """

    def __init__(self, optimizer: SparseOptimizer) -> None:
        self.optimizer = optimizer
        self._handles: list[RemovableHandle] = []
        self._members: dict[str, list[tuple[int, int]]] = {}  # of a block: numbers of group and parameter
        for number, group in enumerate(optimizer.param_groups):
            for i, name in enumerate(group["param_names"]):
                if not group["params"][i].requires_grad:  # no gradient of it will ever arrive
                    continue
                self._members.setdefault(block_name(name), []).append((number, i))
        self._arrived: dict[str, set[tuple[int, int]]] = {block: set() for block in self._members}
        self._streams: dict[str, set[torch.cuda.Stream]] = {block: set() for block in self._members}
        self._refused_clipping = RefusedClipping()

    def __enter__(self) -> InBackward:
        groups = self.optimizer.param_groups
        for group in groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is not None:
                    raise RuntimeError(f"{name!r} already has a gradient; call optimizer.step() or zero_grad() first")
        for block, members in self._members.items():
            for number, i in members:
                hook = functools.partial(self._arrive, block, (number, i))
                self._handles.append(groups[number]["params"][i].register_post_accumulate_grad_hook(hook))
        self._handles.append(self.optimizer.register_step_pre_hook(self._before_step))
        self._handles.append(self.optimizer.register_step_post_hook(self._after_step))
        self._refused_clipping.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._refused_clipping.__exit__()
        self._forget()

    @torch.no_grad()
    def _arrive(self, block: str, member: tuple[int, int], parameter: Tensor) -> None:
        arrived = self._arrived[block]
        if member in arrived:
            name = self.optimizer.param_groups[member[0]]["param_names"][member[1]]
            raise RuntimeError(
                f"a second gradient of {name!r} arrived before optimizer.step(): in-backward steps work with one "
                "backward pass a step and with non-reentrant checkpointing; step after backward for anything else"
            )
        arrived.add(member)
        if parameter.is_cuda:
            self._streams[block].add(torch.cuda.current_stream(parameter.device))
        if len(arrived) == len(self._members[block]):
            self._wait_for_others(block)
            for number in sorted({number for number, _ in arrived}):
                params = self.optimizer.param_groups[number]["params"]
                chosen = sorted(i for n, i in arrived if n == number and params[i].grad is not None)
                self.optimizer.update_parameters(number, chosen)
                for i in chosen:
                    params[i].grad = None

    def _wait_for_others(self, block: str) -> None:
        """Where a network's parts run on streams of their own: a block's update follows all of its gradients.

        The gradients' memory must not be given to other work of their streams before the update has read it.
        """
        if len(self._streams[block]) < 2:
            return
        for number, i in self._members[block]:
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
                "use bfloat16, which needs no scaler, or step after backward"
            )

    def _after_step(self, *_: object) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self._forget()

    def _forget(self) -> None:
        for block, arrived in self._arrived.items():
            arrived.clear()
            self._streams[block].clear()


def block_name(name: str) -> str:
    """The block of a network that a parameter belongs to: its name up to the first number, or its module's name."""
    numbered = re.match(r"(?:.*?\.)?\d+(?=\.)", name)
    return numbered[0] if numbered else name.rpartition(".")[0]
