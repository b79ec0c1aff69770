"""A small backbone that FSDP2 shards over ranks, optimisers of it, and what all ranks hold together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torch.distributed as dist
from processes import together
from torch import Tensor, nn

from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.distributed.fsdp import shard
from mist_ext.distributed.shard import Shard
from mist_ext.distributed.shard_files import gather_tensors
from mist_ext.optim import InBackward, SparseAdamW, SparseSGD
from mist_ext.selection import Selection

BATCH = 6  # which 4 ranks do not share out evenly


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": partial(SparseSGD, lr=0.05, momentum=0.9, weight_decay=1e-3, keep=0.3, seed=5),
    # Keys' biases have gradients of rounding errors alone, which a small eps would make steps of.
    "adamw": partial(SparseAdamW, lr=1e-3, eps=1e-2, weight_decay=1e-2, keep=0.3, seed=5),
}


def on_ranks(size: int, work: Callable[[], Any]) -> list[Any]:
    """What a function returns on each of several ranks, or of the one process that there is without them."""
    return [work()] if size == 1 else together(size, lambda _: work())


def vit() -> nn.Module:
    """A small one, of which nothing is zero, as after a pre-training."""
    torch.manual_seed(3)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=0)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def spread(model: nn.Module) -> nn.Module:
    """The model, sharded where there are ranks."""
    if dist.is_initialized():
        shard(model, model.blocks, torch.device("cpu"))  # type: ignore[arg-type]
    return model.train()


def loss_of(model: nn.Module, step: int) -> Tensor:
    """Of a joint batch, of which each rank goes backward through its own rows."""
    drawing = torch.Generator().manual_seed(step)
    images, wanted = (torch.randn(BATCH, *shape, generator=drawing) for shape in ((3, 32, 32), (192,)))
    rows = BatchRows.of(BATCH).own
    return (model(images[rows]) - wanted[rows]).square().sum() / (BATCH * 192)


def whole(model: nn.Module) -> dict[str, Tensor]:
    return gather_tensors(dict(model.named_parameters()))


def chosen(model: nn.Module) -> Selection:
    return Selection.magnitude(model.named_parameters(), 0.05, "bias|norm")


def on_whole_tensors(selection: Selection) -> dict[str, Tensor]:
    """The indices of all ranks, put together."""
    state = selection.state_dict()["index"]
    return {name: joined(value) for name, value in state.items()}


def joined(part: Tensor) -> Tensor:
    if not isinstance(part, Shard):
        return part
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (part.first, part.entries))
    at = 0
    for first, values in parts:
        assert first == at
        at += len(values)
    assert at == part.total
    return torch.cat([values for _, values in parts])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def close(a: dict[str, Tensor], b: dict[str, Tensor], relative: float = 1e-6) -> bool:
    assert a.keys() == b.keys()
    return all((a[name] - b[name]).abs().max() <= relative * b[name].abs().max() for name in b)


def tuned(kind: str, steps: int, in_backward: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    model = spread(vit().to(dtype))
    optimizer = OPTIMIZERS[kind](model.named_parameters(), chosen(model))
    if in_backward:
        with InBackward(optimizer):
            go_on(model, optimizer, 0, steps)
    else:
        go_on(model, optimizer, 0, steps)
    return whole(model)


def go_on(model: nn.Module, optimizer: Any, first: int, last: int) -> None:
    dtype = next(model.parameters()).dtype
    for step in range(first, last):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
