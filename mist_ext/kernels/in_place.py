"""What autograd must know of tensors that an op writes in place, since the kernels run below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version


def write(op: str, function: Callable[..., Any], *arguments: Any, **written: Sequence[Tensor]) -> None:
    """Call an op, and raise the version of each tensor that it writes, so that backward knows of the change.

    As with torch's own in-place functions, a version counts calls that may have written: also one that changed no bit.

    Parameters
    ----------
    op : str
        The name in messages.
    function : callable
        The op's implementation, called with ``arguments``.
    **written : sequence of Tensor
        The lists that it writes, by the names of its arguments.

    Raises
    ------
    RuntimeError
        Before any change, where torch refuses a change in place too: for tensors that require grad while autograd
        records, and for inference tensors outside of inference mode.
    """
    if torch.compiler.is_compiling():  # autograd knows what is written from the op's schema
        function(*arguments)
        return
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in chain.from_iterable(written.values())):
        name = _name(written, lambda tensor: tensor.requires_grad)
        raise RuntimeError(
            f"{op}: {name} requires grad and would be changed in place, which autograd cannot record; "
            "call it under torch.no_grad()"
        )
    # To ask all takes a tenth of a step, so where an op writes several lists the first tensor stands for each:
    # parameters were asked when the optimiser was made, and its state is made at once.
    asked = chain.from_iterable(written.values() if len(written) == 1 else (t[:1] for t in written.values()))
    if not torch.is_inference_mode_enabled() and any(map(Tensor.is_inference, asked)):
        raise RuntimeError(
            f"{op}: {_name(written, Tensor.is_inference)} is an inference tensor, which can be changed in place under "
            "torch.inference_mode() alone; call it there, or pass a clone"
        )
    function(*arguments)
    for tensors in written.values():
        increment_version(tensors)


def _name(written: dict[str, Sequence[Tensor]], wrong: Callable[[Tensor], bool]) -> str:
    """Return the first wrong tensor's name, as the op's argument."""
    name, i = next((name, i) for name, tensors in written.items() for i, t in enumerate(tensors) if wrong(t))
    return name if name == "packed" else f"{name}[{i}]"  # the one argument that is no list
