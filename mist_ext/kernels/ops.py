"""The ops: typed wrappers of ``torch.ops.mist_ext.*`` that fall back to `reference` where nothing is compiled.

All take lists of tensors and make one pass over them. All check their arguments first and change nothing on an error.
Tensors are contiguous and lie on one device; scores and optimiser state are float32, parameters and gradients float32,
bfloat16 or float16. No memory that is written overlaps that of another argument.

Autograd treats what an op writes as written by torch's own in-place functions: the tensors' versions are raised, so
that a backward pass which needs the old values raises, and tensors that require grad are refused while autograd
records, as are inference tensors outside of inference mode. Nothing is differentiated through an op.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mist_ext.kernels import compiled, fakes
from mist_ext.kernels.implementation import implementation
from mist_ext.kernels.in_place import write
from mist_ext.kernels.keep_rule import keep_mask as keep_mask
from mist_ext.kernels.keep_rule import keep_threshold as keep_threshold
from mist_ext.kernels.packed_ops import pack_ as pack_
from mist_ext.kernels.packed_ops import places as places
from mist_ext.kernels.packed_ops import sampled_weight_grad_ as sampled_weight_grad_
from mist_ext.kernels.reference import pack_bits as pack_bits
from mist_ext.kernels.reference import unpack_bits as unpack_bits
from mist_ext.kernels.value_ops import decode_gaps as decode_gaps
from mist_ext.kernels.value_ops import encode_gaps as encode_gaps
from mist_ext.kernels.value_ops import write_values_ as write_values_

backend = compiled.backend
if compiled.C is not None:
    fakes.register()


def accumulate_(
    score: Sequence[Tensor], grad: Sequence[Tensor], frozen: Sequence[Tensor | None] | None = None, scale: float = 1.0
) -> None:
    """Add ``scale * grad**2`` to each score, except where an entry is frozen.

    Parameters
    ----------
    score : sequence of Tensor
        float32, of the gradients' shapes.
    grad : sequence of Tensor
        float32, bfloat16 or float16.
    frozen : sequence of Tensor or None, optional
        uint8 ``[(numel + 7) // 8]`` each, one bit an entry, least significant first (`pack_bits`).
    scale : float
        The factor of the squares.
    """
    if score or grad:
        frozen = [None] * len(score) if frozen is None else frozen
        add = implementation("accumulate_", score=score, grad=grad)
        write("accumulate_", add, score, grad, frozen, scale, score=score)


def select(score: Sequence[Tensor], k: Sequence[int]) -> list[Tensor]:
    """Return the flat positions of the ``k[i]`` largest entries of ``score[i]``, ties by lowest position.

    Parameters
    ----------
    score : sequence of Tensor
        float32, of any shapes.
    k : sequence of int
        0 to the number of entries of each.

    Returns
    -------
    list of Tensor
        int32 ``[k[i]]``, ascending.

    Raises
    ------
    RuntimeError
        If a score is NaN; the message names the tensor and the entry.
    """
    return list(implementation("select", score=score, k=k)(score, k)) if score or k else []


def drop_apply_sgd_(
    param: Sequence[Tensor],
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    momentum_buffer: Sequence[Tensor],
    master: Sequence[Tensor],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    *,
    lr: Tensor,
    momentum: float,
    weight_decay: float,
    threshold: int,
    seed: int,
    step: Tensor,
    found_inf: Tensor | None = None,
    grad_scale: Tensor | None = None,
    first: Sequence[int] = (),
    packed: Tensor | None = None,
    places: Tensor | None = None,
) -> None:
    """Take an SGD step for the entries that the keep rule keeps; the others are neither read nor written.

    For a kept entry: ``g = grad / grad_scale * table[scale_code]``, ``g += weight_decay * param``,
    ``buffer = momentum * buffer + g``, ``param -= lr * buffer``.

    Parameters
    ----------
    param, grad : sequence of Tensor
        float32, bfloat16 or float16, a gradient of its parameter's dtype and shape.
    index : sequence of Tensor or None
        int32, ascending positions of the selected entries; None where a tensor is fully selected. The order is not
        checked here.
    momentum_buffer : sequence of Tensor
        float32, one value a selected entry. May be empty where ``momentum`` is 0.
    master : sequence of Tensor
        Empty where all parameters are float32; else float32 copies of the selected entries of 16-bit parameters, and
        tensors of size 0 for the float32 ones.
    scale_code : sequence of Tensor or None
        uint8, one code a selected entry; None where nothing is scaled, empty where nothing is in any tensor.
    table : Tensor or None
        float32 ``[256]``, code to factor.
    ordinal : sequence of int
        Each tensor's number in the selection.
    lr, step, found_inf, grad_scale : Tensor
        Single values on the parameters' device, float32 but for the int64 ``step``, so that no step waits for the host.
        Where ``found_inf`` is not 0, nothing happens.
    threshold : int
        `keep_threshold` of the keep probability.
    seed : int
        0 to 2^63 - 1.
    first : sequence of int, optional
        Where the tensors are parts of larger ones: the position of each part's entry 0 in the whole tensor's
        selection, which the keep rule draws by. Empty: 0 for all. A list may have 2^31 entries in all.
    packed, places : Tensor, optional
        The kept entries' gradients as `pack_` packs them, and the `places` of this step on the parameters' device;
        ``grad`` is then empty. On the CPU places that are not this step's are an error before any change; on a GPU,
        where that would wait for the device, they end the process's work there with a trap.
    """
    given = {"param": param, "index": index} if packed is not None else {"param": param, "grad": grad, "index": index}
    if any(given.values()):
        write(
            "drop_apply_sgd_", implementation("drop_apply_sgd_", **given),
            param, grad, index, momentum_buffer, master, scale_code, table, ordinal, lr, momentum, weight_decay,
            threshold, seed, step, found_inf, grad_scale, first, packed, places,
            param=param, momentum_buffer=momentum_buffer, master=master,
        )  # fmt: skip


def drop_apply_adamw_(
    param: Sequence[Tensor],
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    exp_avg: Sequence[Tensor],
    exp_avg_sq: Sequence[Tensor],
    updates: Sequence[Tensor],
    master: Sequence[Tensor],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    *,
    lr: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    correction: Tensor,
    threshold: int,
    seed: int,
    step: Tensor,
    found_inf: Tensor | None = None,
    grad_scale: Tensor | None = None,
    first: Sequence[int] = (),
    packed: Tensor | None = None,
    places: Tensor | None = None,
) -> None:
    """Take an AdamW step for the entries that the keep rule keeps; the others are neither read nor written.

    For a kept entry, with g as in `drop_apply_sgd_` and n its own number of updates, this one included:
    ``exp_avg = beta1 * exp_avg + (1 - beta1) * g``, ``exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g**2``,
    ``param = param * (1 - lr * weight_decay) - lr * (exp_avg / c1 / (sqrt(exp_avg_sq) / c2 + eps))``
    with ``c1, c2 = correction[:, n]``.

    Parameters
    ----------
    param, grad, index, master, scale_code, table, ordinal, lr, threshold, seed, step, found_inf, grad_scale
        As in `drop_apply_sgd_`.
    exp_avg, exp_avg_sq : sequence of Tensor
        float32, one value a selected entry.
    updates : sequence of Tensor
        int32, one count a selected entry.
    correction : Tensor
        float32 ``[2, m]``: ``1 - beta1**n`` and ``sqrt(1 - beta2**n)``. Later updates take the last column.
    first, packed, places
        As in `drop_apply_sgd_`.
    """
    given = {"param": param, "index": index} if packed is not None else {"param": param, "grad": grad, "index": index}
    if any(given.values()):
        write(
            "drop_apply_adamw_", implementation("drop_apply_adamw_", **given),
            param, grad, index, exp_avg, exp_avg_sq, updates, master, scale_code, table, ordinal, lr, beta1, beta2,
            eps, weight_decay, correction, threshold, seed, step, found_inf, grad_scale, first, packed, places,
            param=param, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, updates=updates, master=master,
        )  # fmt: skip


def mask_(
    grad: Sequence[Tensor],
    index: Sequence[Tensor | None],
    scale_code: Sequence[Tensor | None],
    table: Tensor | None,
    ordinal: Sequence[int],
    *,
    threshold: int,
    seed: int,
    step: Tensor,
    first: Sequence[int] = (),
) -> None:
    """Set every entry but the kept ones to zero, and multiply those by ``table[scale_code]``.

    Parameters
    ----------
    grad : sequence of Tensor
        float32, bfloat16 or float16.
    index, scale_code, table, ordinal, threshold, seed, step, first
        As in `drop_apply_sgd_`.
    """
    if grad or index:
        mask = implementation("mask_", grad=grad, index=index)
        write("mask_", mask, grad, index, scale_code, table, ordinal, threshold, seed, step, first, grad=grad)
