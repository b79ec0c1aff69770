"""places, pack_ and `first`: kept gradients in one vector, updates from it, and parts that draw as the whole does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mist_ext.kernels import ops, reference

PIECE = 2048
DRAW = {"threshold": 6554, "seed": 1993}
STEP = 7
SIZES = [0, 1, 63, 64, 65, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 20001]
FIRSTS = [0, 1, 8, 63, 100, PIECE - 1, PIECE, PIECE + 5, 8191, 2**31 - 20001]

Call = dict[str, Any]


def problem(dtype: torch.dtype, share: float | None) -> Call:
    """Gradients of all sizes with all firsts, selected fully or in part."""
    drawing = torch.Generator().manual_seed(5)
    pairs = [(size, first) for size in SIZES for first in FIRSTS]
    grad = [torch.randn(size, generator=drawing).to(dtype) for size, _ in pairs]
    index: list[Tensor | None] = [None] * len(grad)
    if share is not None:
        index = [torch.randperm(len(g), generator=drawing)[: round(share * len(g))].sort().values.int() for g in grad]
    return {"grad": grad, "index": index, "first": [first for _, first in pairs], "ordinal": list(range(len(pairs)))}


def counts(call: Call) -> list[int]:
    return [len(g) if i is None else len(i) for g, i in zip(call["grad"], call["index"], strict=True)]


def kept(call: Call) -> list[list[int]]:
    """Each tensor's kept entries of the selection, by the whole list's mask from its beginning where that is short."""
    found = []
    for ordinal, first, count in zip(call["ordinal"], call["first"], counts(call), strict=True):
        skipped = first if first < 10**5 else 0
        mask = reference.keep_mask(1993, ordinal, STEP, skipped + count, DRAW["threshold"], first - skipped)[skipped:]
        found.append(mask.nonzero().flatten().tolist())
    return found


def slow_places(call: Call) -> list[int]:
    places, total = [], 0
    for chosen, first, count in zip(kept(call), call["first"], counts(call), strict=True):
        pieces = range(first // PIECE, (first + count - 1) // PIECE + 1) if count else []
        for piece in pieces:
            places.append(total)
            total += sum((first + j) // PIECE == piece for j in chosen)
    return [*places, total]


def slow_pack(call: Call) -> Tensor:
    gathered = []
    for chosen, grad, index in zip(kept(call), call["grad"], call["index"], strict=True):
        gathered.append(grad[chosen if index is None else index[chosen].long()].float())
    return torch.cat(gathered)


def packed(call: Call, device: torch.device, wire: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The packed gradients and their places."""
    places = ops.places(counts(call), call["first"], call["ordinal"], step=STEP, **DRAW)
    vector = torch.full((int(places[-1]),), 7.0, dtype=wire, device=device)
    moved = {k: [None if t is None else t.to(device) for t in call[k]] for k in ("grad", "index")}
    step = torch.tensor(STEP, device=device)
    ops.pack_(vector, places=places.to(device), step=step, **{**call, **moved}, **DRAW)
    return vector, places.to(device)


@pytest.mark.parametrize("share", [None, 0.3], ids=["whole", "in_part"])
def test_places_are_where_pieces_begin(share, threads, instruction_set) -> None:
    call = problem(torch.float32, share)
    places = ops.places(counts(call), call["first"], call["ordinal"], step=STEP, **DRAW)
    assert places.dtype == torch.int64
    assert places.tolist() == slow_places(call)
    assert places.tolist() == reference.places(counts(call), call["first"], call["ordinal"], 6554, 1993, STEP).tolist()


def test_the_longest_list_has_places() -> None:
    for part in (1, PIECE, 5000):
        made = ops.places([part], [2**31 - part], [3], threshold=65536, seed=1, step=0)
        assert int(made[-1]) == part


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16], ids=["fp32_wire", "bf16_wire"])
@pytest.mark.parametrize("share", [None, 0.3], ids=["whole", "in_part"])
def test_kept_gradients_are_packed_in_order(device, dtype, wire, share, same_bits) -> None:
    call = problem(dtype, share)
    assert same_bits(packed(call, device, wire)[0], slow_pack(call).to(wire))


def test_neither_threads_nor_instruction_sets_matter_to_packing(dtype, threads, instruction_set, same_bits) -> None:
    call = problem(dtype, 0.5)
    assert same_bits(packed(call, torch.device("cpu"))[0], slow_pack(call))


def update(call: Call, device: torch.device, adamw: bool, **source: Any) -> list[Tensor]:
    """Parameters and state after a step from dense or packed gradients."""
    drawing = torch.Generator().manual_seed(6)
    dtype, selected = call["grad"][0].dtype, counts(call)
    param = [torch.randn(len(g), generator=drawing).to(device, dtype) for g in call["grad"]]

    def compact(kind: torch.dtype = torch.float32) -> list[Tensor]:
        return [torch.rand(n, generator=drawing).to(device, kind) for n in selected]

    lists: Call = {"momentum_buffer": compact()}
    rule: Call = {"momentum": 0.9}
    if adamw:
        lists = {"exp_avg": compact(), "exp_avg_sq": compact(), "updates": compact(torch.int32)}
        rule = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "correction": torch.rand(2, 9, generator=drawing).to(device)}
    master = [] if dtype == torch.float32 else compact()
    codes = [torch.randint(256, (n,), generator=drawing, dtype=torch.uint8).to(device) for n in selected]
    (ops.drop_apply_adamw_ if adamw else ops.drop_apply_sgd_)(
        param=param,
        index=[None if i is None else i.to(device) for i in call["index"]],
        master=master,
        scale_code=codes,
        table=torch.rand(256, generator=drawing).to(device),
        ordinal=call["ordinal"],
        first=call["first"],
        lr=torch.tensor(0.1, device=device),
        weight_decay=0.1,
        step=torch.tensor(STEP, device=device),
        grad_scale=torch.tensor(3.0, device=device),
        **DRAW,
        **lists,
        **rule,
        **source,
    )
    return [*param, *master, *(tensor for kind in lists.values() for tensor in kind)]


@pytest.mark.parametrize("adamw", [False, True], ids=["sgd", "adamw"])
@pytest.mark.parametrize("share", [None, 0.3], ids=["whole", "in_part"])
def test_an_update_from_packed_gradients_has_the_bits_of_a_dense_one(device, dtype, adamw, share, same_bits) -> None:
    call = problem(dtype, share)
    vector, places = packed(call, device)
    ours = update(call, device, adamw, grad=[], packed=vector, places=places)
    dense = update(call, device, adamw, grad=[g.to(device) for g in call["grad"]])
    assert all(same_bits(a, b) for a, b in zip(ours, dense, strict=True))


def test_an_update_from_a_bfloat16_vector_has_the_bits_of_rounded_gradients(device, same_bits) -> None:
    call = problem(torch.float32, 0.3)
    vector, places = packed(call, device, torch.bfloat16)
    rounded = [g.bfloat16().float().to(device) for g in call["grad"]]
    ours = update(call, device, False, grad=[], packed=vector, places=places)
    assert all(same_bits(a, b) for a, b in zip(ours, update(call, device, False, grad=rounded), strict=True))


@pytest.mark.parametrize("cuts", [[20001], [1, 20001], [9999], [2048, 4096, 4099, 8192], list(range(0, 20001, 997))])
@pytest.mark.parametrize("share", [None, 0.4], ids=["whole", "in_part"])
def test_parts_together_draw_what_the_whole_draws(device, cuts, share, same_bits) -> None:
    """Masking, packing and stepping the parts of a tensor gives those of the whole."""
    drawing = torch.Generator().manual_seed(4)
    grad, param = torch.randn(20001, generator=drawing), torch.randn(20001, generator=drawing)
    index = None if share is None else (torch.rand(20001, generator=drawing) < share).nonzero().flatten().int()
    ends = [0, *sorted({*cuts, 20001} - {0})]
    first, parts = [], []
    for begin, end in itertools.pairwise(ends):
        if index is None:
            first.append(begin)
            parts.append(None)
        else:
            first.append(int((index < begin).sum()))
            parts.append((index[(index >= begin) & (index < end)] - begin).int().to(device))

    def split(tensor: Tensor) -> list[Tensor]:
        return [tensor[b:e].clone().to(device) for b, e in itertools.pairwise(ends)]

    step, lr = torch.tensor(STEP, device=device), torch.tensor(0.1, device=device)
    ordinal = [3] * len(parts)

    def run(params: list[Tensor], grads: list[Tensor], index: list[Tensor | None], **begin: Any) -> list[Tensor]:
        numbers = [3] * len(params)
        options = {"lr": lr, "momentum": 0.0, "weight_decay": 0.1, "step": step, **DRAW, **begin}
        ops.drop_apply_sgd_(params, grads, index, [], [], [], None, numbers, **options)
        ops.mask_(grads, index, [], None, numbers, step=step, **DRAW, **begin)
        return [torch.cat(params), torch.cat(grads)]

    whole = run([param.clone().to(device)], [grad.clone().to(device)], [None if index is None else index.to(device)])
    ours = run(split(param), split(grad), parts, first=first)
    assert all(same_bits(a, b) for a, b in zip(ours, whole, strict=True))
    together = {"grad": split(grad), "index": parts, "first": first, "ordinal": ordinal}
    alone = {"grad": [grad], "index": [index], "first": [0], "ordinal": [3]}
    assert same_bits(packed(together, device)[0], packed(alone, device)[0])


def test_places_of_another_step_are_refused_before_any_change() -> None:
    """On the CPU; a GPU would have to be waited for."""
    call = problem(torch.float32, 0.3)
    vector, places = packed(call, torch.device("cpu"))
    other = ops.places(counts(call), call["first"], call["ordinal"], step=STEP + 1, **DRAW)
    swapped = places.clone()
    swapped[1:-1] = swapped[1:-1].flip(0)
    step = torch.tensor(STEP)
    for wrong, message in ((other, "places (end at|do not fit)"), (swapped, "places do not fit what this step keeps")):
        for module in (ops, reference):
            untouched = torch.full_like(vector, 7.0)
            with pytest.raises(RuntimeError, match=message):
                module.pack_(untouched, places=wrong, step=step, **call, **DRAW)
            assert (untouched == 7).all()


def test_no_tensors_are_no_work() -> None:
    places = ops.places([], [], [], step=0, **DRAW)
    assert places.tolist() == [0]
    ops.pack_(torch.empty(0), [], [], places, [], [], step=torch.tensor(0), **DRAW)
