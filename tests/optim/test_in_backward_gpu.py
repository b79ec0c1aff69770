"""Steps during backward on a GPU: the same bits, the memory of one block, and streams."""

from __future__ import annotations

import contextlib

import pytest
import timm
import torch
from torch import Tensor, nn
from vision_networks import OPTIMIZERS, assert_same, pair, vit

from mist_ext.optim import InBackward, SparseSGD


@pytest.mark.gpu
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_on_a_gpu_the_bits_are_those_of_stepping_after_backward(make, dtype, same_bits) -> None:
    """Both are given the same gradients: sums in a GPU's own backward need not repeat."""
    model = vit(dtype).cuda()
    other, within, after = pair(make, model, keep=0.5, weight_decay=0.01)
    others = dict(other.named_parameters())
    for name, p in model.named_parameters():

        def copy_gradient(p: Tensor, name: str = name) -> None:
            others[name].grad = p.grad.clone()

        p.register_post_accumulate_grad_hook(copy_gradient)  # before it is used
    with InBackward(within):
        for step in range(5):
            images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(step))
            model(images.to("cuda", dtype)).float().square().mean().backward()
            within.step()
            after.step()
    assert_same(same_bits, model, other, within, after)


@pytest.mark.gpu
def test_on_a_gpu_peak_memory_is_that_of_the_largest_block() -> None:
    """Of `torch.cuda.max_memory_allocated`, beyond weights, state and activations."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", img_size=32, num_classes=0).cuda()
    _, optimizer, _ = pair(SparseSGD, model)
    gradients = sum(p.numel() * p.element_size() for p in model.parameters())
    largest = max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in model.blocks)
    images = torch.randn(2, 3, 32, 32, device="cuda")  # few activations, which backward frees as it goes

    def peak(within: bool) -> int:
        """The most bytes while going backward and stepping, beyond those at its beginning."""
        loss = model(images).square().mean()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with InBackward(optimizer) if within else contextlib.nullcontext():
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    for within in (True, False):  # the first makes lazy state
        peak(within)
    slim, dense = peak(True), peak(False)
    assert dense - slim > 0.5 * (gradients - largest)


@pytest.mark.gpu
def test_a_block_whose_parts_run_on_streams_of_their_own_is_updated_after_all_of_them() -> None:
    """One part's gradient is delayed on its stream; an update that did not wait would read what was there before."""
    side = torch.cuda.Stream()

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"left": nn.Linear(512, 512), "right": nn.Linear(512, 512)})])

        def forward(self, x: Tensor) -> Tensor:
            left = self.blocks[0]["left"](x)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                right = self.blocks[0]["right"](x)
                for _ in range(50):  # what goes backward through these arrives late
                    right = (right @ torch.eye(512, device="cuda")).relu()
            torch.cuda.current_stream().wait_stream(side)
            return left + right

    torch.manual_seed(0)
    model = Branches().cuda()
    other, within, after = pair(SparseSGD, model, keep=1.0)
    for step in range(5):
        x = torch.randn(64, 512, generator=torch.Generator().manual_seed(step)).cuda()
        with InBackward(within):
            (100 * model(x).square().mean()).backward()
            within.step()
        (100 * other(x).square().mean()).backward()
        torch.cuda.synchronize()
        after.step()
        after.zero_grad()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
