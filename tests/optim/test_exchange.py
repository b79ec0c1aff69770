"""SparseExchange: two processes that exchange kept gradients step as one process does with all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import processes
import pytest
import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mist_ext import InBackward, Selection, SparseAdamW, SparseExchange, SparseSGD
from mist_ext.arrival import UsedGradient
from mist_ext.optim import LargestGradientSGD

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
    **options: Any,
) -> dict[str, Any]:
    """Steps of all ranks, each by its own images."""
    model = vit(DTYPES[dtype])
    optimizer = optimizer_of(model, OPTIMIZERS[make], **options)
    began = values(model, optimizer)
    inside = InBackward(optimizer) if within else contextlib.nullcontext()
    with SparseExchange(optimizer, wire=DTYPES[wire], reduce=reduce) as exchange, inside:
        for step in range(STEPS):
            loss_of(model, step, dist.get_rank()).backward()
            left = [p for p in model.parameters() if p.grad is not None and not isinstance(p.grad, UsedGradient)]
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


def differing(what: str) -> None:
    """Enter with one thing that rank 1 has otherwise."""
    odd = dist.get_rank() == 1
    model = vit()
    if odd and what == "parameters":
        with torch.no_grad():
            model.blocks[1].mlp.fc1.weight[0, 0] += 1
    chosen = selection_of(model, seed=2 if odd and what == "selection" else 1)
    options: dict[str, Any] = {"lr": 0.01, "keep": 0.1, "seed": 0, "step": 0}
    if odd and what in options:
        options[what] = {"lr": 0.02, "keep": 0.2, "seed": 5, "step": 3}[what]
    optimizer = SparseSGD(model.named_parameters(), chosen, **options)
    wire = torch.bfloat16 if odd and what == "wire" else torch.float32
    with SparseExchange(optimizer, wire=wire):
        pass


def scaled() -> None:
    model = vit()
    optimizer = optimizer_of(model)
    scaler = torch.amp.GradScaler("cpu")
    with SparseExchange(optimizer):
        scaler.scale(loss_of(model, 0, 0)).backward()
        scaler.step(optimizer)


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


def half_within() -> None:
    exchanged(within=dist.get_rank() == 1)


def entered_twice() -> None:
    optimizer = optimizer_of(vit())
    with SparseExchange(optimizer), SparseExchange(optimizer):
        pass


def ranks(work: Callable[[], Any]) -> list[Any]:
    """What the work returns on each rank."""
    return processes.together(SIZE, lambda _: work())


def refusals(work: Callable[[], Any]) -> list[str]:
    """What each rank is told."""
    outcomes = processes.outcomes_of(SIZE, lambda _: work())
    assert all(isinstance(outcome, processes.Failed) for outcome in outcomes), "a rank was not told of the error"
    return [str(outcome) for outcome in outcomes]


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


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_two_ranks_step_as_one_process_with_all_gradients(make, reduce, same_bits) -> None:
    one, other = ranks(lambda: exchanged(make=make, reduce=reduce))
    expected = alone(make=make, reduce=reduce)
    assert_close(one["values"], expected, 1e-6)
    assert_same(same_bits, one["values"], other["values"])
    assert one["steps"] == 5
    moved = [not torch.equal(one["began"][name], value) for name, value in one["values"].items() if "/" not in name]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_bits_are_the_same_within_backward(make, dtype, same_bits) -> None:
    within, _ = ranks(lambda: exchanged(make=make, dtype=dtype, within=True))
    after, _ = ranks(lambda: exchanged(make=make, dtype=dtype))
    assert_same(same_bits, within["values"], after["values"])
    assert within["bytes"] == after["bytes"] > 0
    assert within["gradients left"] == 0 < after["gradients left"]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_masters_of_16_bit_parameters_follow_the_summed_gradients(dtype) -> None:
    """One process has to round the sum of the gradients to their dtype, the ranks have not."""
    ours, _ = ranks(lambda: exchanged(dtype=dtype))
    expected = alone(dtype=dtype)
    masters = [name for name in expected if name.endswith("/master")]
    assert len(masters) > 40
    moved = far = 0.0
    for name in masters:
        moved += float((expected[name] - ours["began"][name]).square().sum())
        far += float((expected[name] - ours["values"][name]).square().sum())
    assert 0 < far < (0.03**2) * moved
    for name in masters:
        parameter = ours["values"][name.removesuffix("/master")].flatten()
        index = ours["values"].get(name.replace("/master", "/index"))
        chosen = parameter if index is None else parameter[index.long()]
        assert torch.equal(chosen, ours["values"][name].to(chosen.dtype))


def test_a_bfloat16_wire_takes_half_of_the_bytes_and_stays_close() -> None:
    full, _ = ranks(lambda: exchanged())
    half, _ = ranks(lambda: exchanged(wire="bf16"))
    assert half["bytes"] == full["bytes"] / 2
    moved = far = 0.0
    for name in (name for name in full["values"] if "/" not in name):
        moved += float((full["values"][name] - full["began"][name]).square().sum())
        far += float((full["values"][name] - half["values"][name]).square().sum())
    assert 0 < far < (0.02**2) * moved


def test_the_bytes_are_those_of_the_kept_entries() -> None:
    ours, _ = ranks(lambda: exchanged())
    assert ours["bytes"] == pytest.approx(4 * ours["kept"], rel=0.05)


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
def test_the_used_parts_may_change_on_all_ranks_together(within, same_bits) -> None:
    used = [["lll", "lll"], ["lll", "lll"], ["lrl", "lrl"], ["rrr", "rrr"], ["rrr", "rrr"]]
    one, other = ranks(lambda: branches(used=used, within=within))
    assert_same(same_bits, one, other)
    assert_close(one, branches_alone(used), 1e-6)


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
@pytest.mark.parametrize("before", [0, 2], ids=["first_step", "later"])
def test_a_gradient_on_one_rank_alone_is_named(before, within) -> None:
    used = [["lll", "lll"]] * before + [["lrl", "lll"]]
    for error in refusals(lambda: branches(used=used, within=within)):
        assert "'blocks.1.left.weight' has a gradient on rank 1, but none on rank 0" in error


DIFFERENT = {
    "selection": r"digest of the selection of 'cls_token' is \w+ on rank 0, but \w+ on rank 1",
    "seed": "seed is 0 on rank 0, but 5 on rank 1",
    "keep": "keep of group 0 is 0.1 on rank 0, but 0.2 on rank 1",
    "lr": "lr of group 0 is 0.01 on rank 0, but 0.02 on rank 1",
    "step": "step of group 0 is 0 on rank 0, but 3 on rank 1",
    "wire": "wire is torch.float32 on rank 0, but torch.bfloat16 on rank 1",
    "parameters": r"checksum of 'blocks.1.mlp.fc1.weight' is -?\d+ on rank 0",
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_ranks_that_differ_are_refused(what) -> None:
    for error in refusals(lambda: differing(what=what)):
        with pytest.raises(RuntimeError, match=DIFFERENT[what]):
            raise RuntimeError(error)


def test_a_grad_scaler_is_refused() -> None:
    assert all("use bfloat16, which needs no scaler" in error for error in refusals(lambda: scaled()))


def test_two_exchanges_of_one_optimiser_are_refused() -> None:
    assert all("in another SparseExchange already" in error for error in refusals(lambda: entered_twice()))


def test_steps_within_backward_on_one_rank_alone_are_refused() -> None:
    assert all("enter InBackward on all ranks or on none" in error for error in refusals(lambda: half_within()))


def without_exchange() -> None:
    model = nn.Linear(4, 4)
    optimizer = SparseSGD(model.named_parameters(), Selection.whole(model.named_parameters()))
    averaged = nn.parallel.DistributedDataParallel(model)
    with InBackward(optimizer):
        averaged(torch.ones(2, 4)).square().sum().backward()


def test_steps_within_backward_that_do_not_wait_for_the_other_ranks_are_refused() -> None:
    for error in refusals(lambda: without_exchange()):
        assert "would be updated by this rank's gradient alone" in error
        assert "enter SparseExchange(optimizer) too" in error


def test_loading_a_state_changes_what_is_drawn_next(same_bits) -> None:
    one, other = ranks(lambda: resumed())
    assert_same(same_bits, one, other)
    assert_same(same_bits, one, ranks(lambda: exchanged())[0]["values"])


def tiny(make: type = SparseSGD) -> Any:
    model = nn.Linear(4, 4)
    return make(model.named_parameters(), Selection.whole(model.named_parameters()))


def test_without_a_process_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"needs a process group: start with torchrun"), SparseExchange(tiny()):
        pass


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="LargestGradientSGD needs dense gradients"):
        SparseExchange(tiny(LargestGradientSGD))
    with pytest.raises(ValueError, match=r"wire is torch.float16, expected torch.float32 or torch.bfloat16"):
        SparseExchange(tiny(), wire=torch.float16)
    with pytest.raises(ValueError, match="reduce is 'max', expected 'sum' or 'mean'"):
        SparseExchange(tiny(), reduce="max")


def test_one_process_alone_is_a_group_too(same_bits) -> None:
    """In a group of one the exchange changes nothing."""

    def one() -> dict[str, Any]:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return exchanged()

    (ours,) = processes.together(1, lambda _: one())
    assert_same(same_bits, ours["values"], alone(size=1))
