"""sampled_weight_grad_: kept entries of weight gradients, in one order of sums on every device and for all threads."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mist_ext.kernels import ops, reference

DRAW = {"threshold": 20000, "seed": 1993}
STEP = 7
Call = dict[str, Any]

# Tokens, outputs, inputs, first position, share of the weight that is selected (None: all of it).
LAYERS = [
    (1, 5, 7, 0, None),
    (63, 33, 17, 3, 0.5),
    (64, 16, 16, 2047, None),
    (65, 1, 300, 0, 0.9),
    (1000, 70, 50, 5000, 0.3),
    (80, 300, 1, 0, None),
    (0, 4, 6, 0, None),  # no tokens
    (9, 0, 6, 0, None),  # no outputs
    (20, 6, 8, 0, 0.0),  # nothing selected
    (70, 40, 20000, 1, 0.0002),  # far fewer entries than features
]


def layers(shapes: list[tuple[int, int, int, int, float | None]], dtype: torch.dtype) -> Call:
    drawing = torch.Generator().manual_seed(8)
    call: Call = {"grad_output": [], "input": [], "index": [], "first": [], "ordinal": list(range(len(shapes)))}
    for tokens, outputs, inputs, first, share in shapes:
        call["grad_output"].append(torch.randn(tokens, outputs, generator=drawing).to(dtype))
        call["input"].append(torch.randn(tokens, inputs, generator=drawing).to(dtype))
        call["first"].append(first)
        chosen = torch.rand(outputs * inputs, generator=drawing) < (share or 0)
        call["index"].append(None if share is None else chosen.nonzero().flatten().int())
    return call


def sizes(call: Call) -> list[int]:
    return [y.shape[1] * x.shape[1] for y, x in zip(call["grad_output"], call["input"], strict=True)]


def places(call: Call, **draw: int) -> Tensor:
    counts = [n if i is None else len(i) for n, i in zip(sizes(call), call["index"], strict=True)]
    return ops.places(counts, call["first"], call["ordinal"], step=STEP, **{**DRAW, **draw})


def sampled(implementation: Any, call: Call, packed: Tensor, device: torch.device, **draw: int) -> Tensor:
    """What the packed vector becomes, on the CPU."""
    moved = {k: [None if t is None else t.to(device) for t in call[k]] for k in ("grad_output", "input", "index")}
    vector = packed.clone().to(device)
    rest = {"places": places(call, **draw).to(device), "step": torch.tensor(STEP, device=device), **DRAW, **draw}
    implementation.sampled_weight_grad_(vector, **{**call, **moved, **rest})
    return vector.cpu()


def beginning(call: Call, beyond: int = 5, **draw: int) -> Tensor:
    """A packed vector that holds something already, and is longer than it need be."""
    return torch.randn(int(places(call, **draw)[-1]) + beyond, generator=torch.Generator().manual_seed(9))


@functools.cache
def expected(dtype: torch.dtype) -> tuple[Call, Tensor, Tensor]:
    call = layers(LAYERS, dtype)
    packed = beginning(call)
    return call, packed, sampled(reference, call, packed, torch.device("cpu"))


def test_kept_entries_have_the_bits_of_the_oracle(device, dtype, same_bits) -> None:
    call, packed, oracle = expected(dtype)
    ours = sampled(ops, call, packed, device)
    assert same_bits(ours, oracle)
    assert same_bits(ours[-5:], packed[-5:])
    assert not torch.isclose(ours[:-5], packed[:-5]).all()


def test_neither_threads_nor_instruction_sets_matter(dtype, threads, instruction_set, same_bits) -> None:
    call, packed, oracle = expected(dtype)
    assert same_bits(sampled(ops, call, packed, torch.device("cpu")), oracle)


@functools.cache
def large() -> tuple[Call, Tensor, Tensor]:
    """More entries and sums than are worked on at a time."""
    call = layers([(65, 450, 600, 11, None), (65, 70, 30, 0, 0.5)], torch.float32)
    packed = beginning(call, threshold=65536)
    return call, packed, sampled(reference, call, packed, torch.device("cpu"), threshold=65536)


def test_many_entries_are_worked_on_in_parts(device, threads, same_bits) -> None:
    call, packed, oracle = large()
    assert same_bits(sampled(ops, call, packed, device, threshold=65536), oracle)


def test_whole_numbers_give_the_bits_of_packing_the_dense_gradient(device, dtype, same_bits) -> None:
    """Where no sum is rounded, any order of sums is the same."""
    call = layers(LAYERS, torch.float32)
    for name in ("grad_output", "input"):
        call[name] = [(2 * t).round().clamp(-4, 4).to(dtype) for t in call[name]]
    operands = zip(call["grad_output"], call["input"], strict=True)
    dense = [(y.float().T @ x.float()).flatten().add(0.0).to(device) for y, x in operands]  # no sum of ours is -0
    made = places(call)
    packed = torch.empty(int(made[-1]), device=device)
    index = [None if i is None else i.to(device) for i in call["index"]]
    draw = {**DRAW, "step": torch.tensor(STEP, device=device)}
    ops.pack_(packed, dense, index, made.to(device), call["first"], call["ordinal"], **draw)
    assert same_bits(sampled(ops, call, torch.zeros(len(packed)), device), packed.cpu())


@pytest.mark.parametrize("tokens", [197, 12608])
def test_sums_are_as_near_to_double_precision_as_a_dense_product_is(device, tokens) -> None:
    call = layers([(tokens, 40, 50, 0, None)], torch.float32)
    ours = sampled(ops, call, torch.zeros(2000), device, threshold=65536)
    exact = (call["grad_output"][0].double().T @ call["input"][0].double()).flatten()
    assert float((ours - exact).norm() / exact.norm()) < 1e-6


def test_parts_of_the_tokens_add_up_to_the_whole(device, same_bits) -> None:
    """Where they are cut at multiples of 64: as gradients are accumulated over batches."""
    call = layers([(200, 30, 40, 0, 0.5)], torch.float32)
    packed = beginning(call)
    whole = sampled(ops, call, packed, device)
    for begin, end in ((0, 64), (64, 192), (192, 200)):
        part = {**call, **{name: [call[name][0][begin:end]] for name in ("grad_output", "input")}}
        packed = sampled(ops, part, packed, device)
    assert same_bits(packed, whole)


def test_negative_zeros_and_infinities_are_summed_alike(device, same_bits) -> None:
    call = layers([(70, 8, 8, 0, None)], torch.float32)
    call["grad_output"][0][:, 0] = 0.0
    call["input"][0].neg_().abs_().neg_()
    call["grad_output"][0][3, 1] = torch.inf
    packed = torch.full((64,), -0.0)
    ours = sampled(ops, call, packed, device, threshold=65536)
    assert same_bits(ours, sampled(reference, call, packed, torch.device("cpu"), threshold=65536))
    assert ours[:8].tolist() == [0.0] * 8
    assert not ours[:8].signbit().any()
    assert ours[8:16].isinf().all()


def test_nothing_kept_and_no_layers_are_no_work(device, same_bits) -> None:
    call = layers(LAYERS, torch.float32)
    packed = torch.randn(3)
    assert same_bits(sampled(ops, call, packed, device, threshold=0), packed)
    nothing = layers([], torch.float32)
    assert same_bits(sampled(ops, nothing, packed, device), packed)


SHAPES = st.tuples(
    st.sampled_from([0, 1, 15, 16, 17, 63, 64, 65, 129]),
    st.integers(0, 40),
    st.integers(0, 80),
    st.integers(0, 5000),
    st.sampled_from([None, 0.0, 0.02, 0.5]),
)


@given(
    st.lists(SHAPES, max_size=4), st.sampled_from([torch.float32, torch.bfloat16]), st.sampled_from([1, 6554, 65536])
)
def test_random_layers_have_the_bits_of_the_oracle(device, same_bits, shapes, dtype, threshold) -> None:
    call = layers(shapes, dtype)
    packed = beginning(call, threshold=threshold)
    oracle = sampled(reference, call, packed, torch.device("cpu"), threshold=threshold)
    assert same_bits(sampled(ops, call, packed, device, threshold=threshold), oracle)


def test_memory_around_the_tensors_is_left_alone(device, surrounded, same_bits) -> None:
    call, packed, oracle = expected(torch.float32)
    moved = {k: [surrounded(t, device) for t in call[k]] for k in ("grad_output", "input")}
    vector = surrounded(packed, device)
    index = [None if i is None else i.to(device) for i in call["index"]]
    step = torch.tensor(STEP, device=device)
    made = places(call).to(device)
    ops.sampled_weight_grad_(vector, **{**call, **moved, "index": index}, places=made, step=step, **DRAW)
    assert same_bits(vector.cpu(), oracle)
