"""Networks whose ranks exchange kept gradients, and the same steps in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import processes
import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mist_ext import InBackward, SampledGradients, Selection, SparseAdamW, SparseExchange, SparseSGD
from mist_ext.arrival import UsedGradient
from mist_ext.optim.kept_gradient import KeptGradient

SIZE = 2


STEPS = 5


OPTIMIZERS = {"sgd": SparseSGD, "adamw": SparseAdamW}


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def vit(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_heads=2, embed_dim=32, num_classes=5).to(
        dtype
    )


def selection_of(model: nn.Module, seed: int = 1) -> Selection:
    return Selection.random(model.named_parameters(), 0.2, seed=seed)


def in_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices with decay, the rest without and with another rate."""
    named = list(model.named_parameters())
    return [
        {"params": [(name, p) for name, p in named if p.ndim > 1], "weight_decay": 0.01},
        {"params": [(name, p) for name, p in named if p.ndim <= 1], "weight_decay": 0.0, "lr": 0.02, "keep": 0.7},
    ]


def optimizer_of(model: nn.Module, make: type = SparseSGD, **options: Any) -> Any:
    options = {"lr": 0.01, "keep": 0.5, "seed": 7, **options}
    return make(in_groups(model), selection_of(model), **options)


def loss_of(model: nn.Module, step: int, rank: int) -> Tensor:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(100 * step + rank))
    return model(images.to(next(model.parameters()).dtype)).float().square().mean()


def values(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """Parameters and optimiser state by name."""
    named = {name: p.detach().clone() for name, p in model.named_parameters()}
    states = {f"{name}/{k}": v.clone() for name, p in model.named_parameters() for k, v in optimizer.state[p].items()}
    return named | states


def exchanged(
    make: str = "sgd",
    dtype: str = "fp32",
    reduce: str = "sum",
    wire: str = "fp32",
    within: bool = False,
    sampled: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Steps of all ranks, each by its own images."""
    model = vit(DTYPES[dtype])
    optimizer = optimizer_of(model, OPTIMIZERS[make], **options)
    began = values(model, optimizer)
    inside = InBackward(optimizer) if within else contextlib.nullcontext()
    inside = SampledGradients(optimizer, model) if sampled else inside
    with SparseExchange(optimizer, wire=DTYPES[wire], reduce=reduce) as exchange, inside:
        for step in range(STEPS):
            loss_of(model, step, dist.get_rank()).backward()
            without = (type(None), UsedGradient, KeptGradient)
            left = [p for p in model.parameters() if not isinstance(p.grad, without)]
            optimizer.step()
            optimizer.zero_grad()
    kept = sum(
        optimizer.selection.count(name) * group["keep"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    )
    facts = {"bytes": exchange.bytes, "kept": kept, "steps": optimizer.steps, "gradients left": len(left)}
    return {"values": values(model, optimizer), "began": began, **facts}


def alone(
    make: str = "sgd", dtype: str = "fp32", reduce: str = "sum", size: int = SIZE, **options: Any
) -> dict[str, Tensor]:
    """The same steps in one process: dense gradients of all ranks' images, added in float32."""
    model = vit(DTYPES[dtype])
    optimizer = optimizer_of(model, OPTIMIZERS[make], **options)
    for step in range(STEPS):
        sums = [torch.zeros_like(p, dtype=torch.float32) for p in model.parameters()]
        for rank in range(size):
            loss_of(model, step, rank).backward()
            for total, p in zip(sums, model.parameters(), strict=True):
                total += p.grad.float()
            optimizer.zero_grad()
        for total, p in zip(sums, model.parameters(), strict=True):
            p.grad = (total / (size if reduce == "mean" else 1)).to(p.dtype)
        optimizer.step()
        optimizer.zero_grad()
    return values(model, optimizer)


class Branches(nn.Module):
    """Of each block one part is used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        parts = ("left", "right")
        self.blocks = nn.ModuleList(nn.ModuleDict({part: nn.Linear(4, 4) for part in parts}) for _ in range(3))

    def forward(self, x: Tensor, used: str) -> Tensor:
        for block, part in zip(self.blocks, used, strict=True):
            x = block[{"l": "left", "r": "right"}[part]](x)
        return x


def branched() -> tuple[nn.Module, Any]:
    model = Branches()
    return model, SparseSGD(model.named_parameters(), Selection.whole(model.named_parameters()), lr=0.1, keep=1.0)


def branches(used: list[list[str]], within: bool) -> dict[str, Tensor]:
    """Steps in which each rank uses the parts it is told: `used` by step and rank."""
    model, optimizer = branched()
    inside = InBackward(optimizer) if within else contextlib.nullcontext()
    with SparseExchange(optimizer, reduce="sum"), inside:
        for step in used:
            rank = dist.get_rank()
            model(torch.full((2, 4), 1.0 + rank), step[rank]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def branches_alone(used: list[list[str]]) -> dict[str, Tensor]:
    """The same in one process, where gradients of all ranks' passes add up."""
    model, optimizer = branched()
    for step in used:
        for rank, parts in enumerate(step):
            model(torch.full((2, 4), 1.0 + rank), parts).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def resumed() -> dict[str, Tensor]:
    """Five steps of which the last three follow on what was saved after two, inside and outside the context."""
    model = vit()
    optimizer = optimizer_of(model)
    rank = dist.get_rank()

    def step(number: int) -> None:
        loss_of(model, number, rank).backward()
        optimizer.step()
        optimizer.zero_grad()

    with SparseExchange(optimizer, reduce="sum"):
        for number in range(2):
            step(number)
        parameters = {name: value.clone() for name, value in model.state_dict().items()}
        saved = {**optimizer.state_dict()}
        saved["state"] = {key: {k: v.clone() for k, v in state.items()} for key, state in saved["state"].items()}
        saved["param_groups"] = [{**g, "step": g["step"].clone()} for g in saved["param_groups"]]
        step(9)
        model.load_state_dict(parameters)
        optimizer.load_state_dict(saved)
        step(2)
    with SparseExchange(optimizer, reduce="sum"):
        for number in (3, 4):
            step(number)
    return values(model, optimizer)


def ranks(work: Callable[[], Any]) -> list[Any]:
    """What the work returns on each rank."""
    return processes.together(SIZE, lambda _: work())


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor to a tolerance relative to its largest value."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = float(value.abs().float().max()) if value.numel() else 0.0
        difference = (ours[name].float() - value.float()).abs()
        assert not value.numel() or float(difference.max()) <= tolerance * scale, name


def assert_same(same_bits: Callable, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], value) for name, value in theirs.items())
