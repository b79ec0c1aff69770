"""What the meter finds of work whose cost is known."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mist_ext.cost.first_step import FirstStep
from mist_ext.cost.meter import UNTIMED, Meter
from mist_ext.system import peak_memory

CPU = torch.device("cpu")


def shown(iterable: Iterable[Any], _phase: str, _total: int) -> Iterable[Any]:
    return iterable


def test_flops_are_those_of_the_products_before_and_after_backward() -> None:
    layers = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    meter = Meter(CPU, shown)
    for pixels in meter.track([torch.randn(11, 7)] * 4, "tune 1/1", 4):
        layers(pixels).sum().backward()
    steps = meter.phases["tune"]
    assert steps.forward_flops == 2 * 11 * (7 * 5 + 5 * 3)
    # Every weight's gradient, and that of the hidden layer; none of the pixels.
    assert steps.backward_flops == 2 * 11 * (7 * 5 + 2 * 5 * 3)
    assert len(steps.times) == 4 - UNTIMED


def test_attention_counts_as_its_two_products() -> None:
    query = torch.randn(2, 3, 6, 8)  # images, heads, tokens, width
    meter = Meter(CPU, shown)
    meter.repeat(lambda: functional.scaled_dot_product_attention(query, query, query), "evaluate", 1)
    steps = meter.phases["evaluate"]
    assert (steps.forward_flops, steps.backward_flops) == (2 * (2 * 2 * 3 * 6 * 6 * 8), 0)


def test_time_is_that_of_a_step_and_of_making_its_batch() -> None:
    def batches() -> Iterable[int]:
        for number in range(5):
            time.sleep(0.02)
            yield number

    meter = Meter(CPU, shown)
    for number in meter.track(batches(), "train", 5):
        time.sleep(0.5 if number < UNTIMED else 0.03)
    assert 0.05 <= meter.phases["train"].seconds < 0.4


@pytest.mark.skipif(not peak_memory.resettable(), reason="the system does not tell it")
def test_memory_is_what_a_timed_step_takes_beyond_what_was_there() -> None:
    there = torch.ones(2**25)  # 128 MiB
    meter = Meter(CPU, shown)
    for number in meter.track(range(4), "tune", 4):
        torch.ones(2**25 if number < UNTIMED else 2**24)  # 64 MiB where it is timed
    del there
    peak = meter.phases["tune"].peak_memory_bytes
    assert peak is not None
    assert 60 * 2**20 < peak < 100 * 2**20


def test_an_error_in_a_step_leaves_no_counter_behind() -> None:
    meter = Meter(CPU, shown)
    steps = meter.track(range(3), "tune", 3)
    next(steps)
    next(steps)
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    meter.close()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_the_first_step_says_what_is_trained_and_changed() -> None:
    moved, still = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(4))
    moved.grad, still.grad = torch.tensor([1.0, 0, 0, 1, 1e-30]), torch.zeros(4)
    optimizer = torch.optim.SGD([{"params": [moved]}, {"params": [still], "lr": 1.0}], lr=0.1)
    with FirstStep() as first:
        optimizer.step()
        moved.grad = torch.ones(5)
        optimizer.step()
    assert (first.trained, first.changed) == (9, 2)
    optimizer.step()
    with FirstStep() as none:
        pass
    assert (none.trained, none.changed) == (None, None)
