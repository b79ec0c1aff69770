"""A step captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import give_gradients, network, selected

from mist_ext.optim import SparseAdamW, SparseSGD


@pytest.mark.gpu
@pytest.mark.parametrize("make", [SparseSGD, SparseAdamW])
def test_a_captured_step_replays_as_eager_steps_run(make: Any, same_bits: Callable) -> None:
    """A hundred replays of one captured step against a hundred eager steps: the draw follows the step's number."""
    device = torch.device("cuda")
    models = [network(device=device) for _ in range(2)]
    rate = torch.tensor(0.1, device=device)
    captured, eager = (make(m.named_parameters(), selected(m), lr=rate, keep=0.5) for m in models)
    for model in models:
        give_gradients(model, 0)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm-up, as torch's capture asks for
        captured.step()
    torch.cuda.current_stream().wait_stream(side)
    eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for step in range(100):
        rate.fill_(0.1 / (1 + step))
        graph.replay()
        eager.step()
    assert captured.steps == eager.steps == 101
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        assert same_bits(p, q)
