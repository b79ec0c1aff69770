"""SampledGradients on a GPU: the steps of dense gradients, no wait for the device, and no CUDA graphs."""

from __future__ import annotations

import pytest
import torch
from sampling import sparse
from torch import Tensor, nn
from vision_networks import OPTIMIZERS, pair, vit

from mist_ext import SampledGradients, SparseAdamW


def images_of(step: int) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(step)).cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_on_a_gpu_steps_are_those_of_dense_gradients(make) -> None:
    options = {"eps": 1e-3} if make is SparseAdamW else {}
    model = vit().cuda()
    other, ours, theirs = pair(make, model, keep=0.5, weight_decay=0.01, **options)
    with SampledGradients(ours, model):
        for step in range(5):
            for m, optimizer in ((model, ours), (other, theirs)):
                m(images_of(step)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.gpu
def test_on_a_gpu_no_step_waits_for_the_device() -> None:
    model = vit().cuda()
    optimizer = sparse(model)
    images = images_of(0)
    with SampledGradients(optimizer, model):
        for step in range(3):
            torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first one makes tables
            try:
                model(images).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert optimizer.steps == 3


@pytest.mark.gpu
def test_a_cuda_graph_of_a_backward_pass_is_refused() -> None:
    model = nn.Linear(8, 8).cuda()
    optimizer = sparse(model)
    x = torch.ones(2, 8, device="cuda")
    with SampledGradients(optimizer, model):
        model(x).sum().backward()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        with pytest.raises(RuntimeError, match="'weight' are drawn by the host before each step, which a CUDA graph"):
            capture(model, x)


def capture(model: nn.Module, x: Tensor) -> None:
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        model(x).sum().backward()
