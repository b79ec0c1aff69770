"""The ops that know a vector of the kept entries' gradients: where they lie in it, and what fills it.

`ops` has them too, beside the others, and says what all ops have in common.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mist_ext.kernels import compiled, reference
from mist_ext.kernels.implementation import implementation
from mist_ext.kernels.in_place import write


def places(
    count: Sequence[int], first: Sequence[int], ordinal: Sequence[int], *, threshold: int, seed: int, step: int
) -> Tensor:
    """Return the offsets of a step's kept entries in a packed vector, which the host knows by the keep rule alone.

    The selection lists are cut into pieces where the positions in the whole list are multiples of 2048.

    Parameters
    ----------
    count : sequence of int
        How many entries of each tensor are selected, in this part of it.
    first, ordinal, threshold, seed
        As in `drop_apply_sgd_`.
    step : int
        The value that the other ops get as a tensor.

    Returns
    -------
    Tensor
        int64 ``[pieces + 1]`` on the CPU: for each piece of each tensor, in order, the offset of its first kept
        entry; last the length of the packed vector.
    """
    host = torch.ops.mist_ext if compiled.available(torch.device("cpu")) else reference
    return host.places(count, first, ordinal, threshold, seed, step)


def pack_(
    packed: Tensor,
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    *,
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    """Gather the kept entries' gradients of all tensors into one vector, tensor by tensor, in order of selection.

    Parameters
    ----------
    packed : Tensor
        float32 or bfloat16, ``[places[-1]]``.
    grad : sequence of Tensor
        float32, bfloat16 or float16.
    places : Tensor
        What `places` returns for the same lists and step, on the gradients' device.
    index, first, ordinal, threshold, seed, step
        As in `drop_apply_sgd_`.
    """
    if grad or index:
        pack = implementation("pack_", grad=grad, index=index)
        write("pack_", pack, packed, grad, index, places, first, ordinal, threshold, seed, step, packed=[packed])


def sampled_weight_grad_(
    packed: Tensor,
    grad_output: Sequence[Tensor],
    input: Sequence[Tensor],
    index: Sequence[Tensor | None],
    places: Tensor,
    first: Sequence[int],
    ordinal: Sequence[int],
    *,
    threshold: int,
    seed: int,
    step: Tensor,
) -> None:
    """Add linear layers' weight gradients ``grad_output.T @ input`` to a packed vector, at the kept entries alone.

    The rest of the gradient is never computed. An entry's products over the tokens are added up in one order on every
    device: tokens are cut into tiles of 64; within a tile, lane l of 16 begins at zero and adds the products of its
    tokens l, l + 16, l + 32 and l + 48 one after the other, and the lanes are added 8 + 8, 4 + 4, 2 + 2 and 1 + 1 (lane
    l with lane l + 8, and so on); tiles are added to the packed entry one after the other. Products and sums are
    float32, each rounded on its own. So calls for consecutive parts of the tokens, cut at multiples of 64, give the
    bits of one call.

    Parameters
    ----------
    packed : Tensor
        float32, at least ``[places[-1]]``; what lies beyond is left alone.
    grad_output, input : sequence of Tensor
        ``[tokens, out]`` and ``[tokens, in]`` for each weight ``[out, in]``, both float32, bfloat16 or float16. A
        position p of the weight is row ``p // in``, column ``p % in``.
    places : Tensor
        What `places` returns for the same lists and step, on the operands' device.
    index, first, ordinal, threshold, seed, step
        As in `drop_apply_sgd_`, for the weights.
    """
    if grad_output or input or index:
        add = implementation("sampled_weight_grad_", grad_output=grad_output, input=input, index=index)
        write(
            "sampled_weight_grad_", add,
            packed, grad_output, input, index, places, first, ordinal, threshold, seed, step,
            packed=[packed],
        )  # fmt: skip
