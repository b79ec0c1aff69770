"""SparseSGD, SparseAdamW and MaskedGradient: exact and published dynamics, saving and loading, what is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mist_ext import ops, reference
from mist_ext.optim import MaskedGradient, SparseAdamW, SparseSGD
from mist_ext.optim.adamw import LARGEST_BETA, bias_correction
from mist_ext.selection import Selection

CPU = torch.device("cpu")
TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()
LR, DECAY = np.float32(0.1), np.float32(0.01)  # of the slow steps

Entry = dict[str, Any]  # the state of one entry


def slow_sgd(entry: Entry, g: np.float32, value: np.float32) -> np.float32:
    """The new value of one entry whose gradient is kept; momentum 0.9."""
    entry["momentum"] = np.float32(0.9) * entry["momentum"] + (g + DECAY * value)
    return value - LR * entry["momentum"]


def slow_adamw(entry: Entry, g: np.float32, value: np.float32) -> np.float32:
    """The same with betas 0.9 and 0.999."""
    entry["updates"] += 1
    bias, root_bias = (np.float32(b) for b in (1 - 0.9 ** entry["updates"], (1 - 0.999 ** entry["updates"]) ** 0.5))
    entry["exp_avg"] = np.float32(0.9) * entry["exp_avg"] + np.float32(1 - 0.9) * g
    entry["exp_avg_sq"] = np.float32(0.999) * entry["exp_avg_sq"] + np.float32(1 - 0.999) * (g * g)
    root = np.sqrt(entry["exp_avg_sq"]) / root_bias + np.float32(1e-8)
    return value * (np.float32(1) - LR * DECAY) - LR * (entry["exp_avg"] / bias / root)


@dataclass(frozen=True)
class Kind:
    """A sparse optimiser, torch's own, an entry's state by its names there and in the op, and the step of one entry."""

    sparse: type
    dense: type
    state: dict[str, str]
    slow: Callable[[Entry, np.float32, np.float32], np.float32]


AVERAGES = ("exp_avg", "exp_avg_sq", "updates")
KINDS = {
    "sgd": Kind(SparseSGD, torch.optim.SGD, {"momentum": "momentum_buffer"}, slow_sgd),
    "adamw": Kind(SparseAdamW, torch.optim.AdamW, dict(zip(AVERAGES, AVERAGES, strict=True)), slow_adamw),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def network(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.LayerNorm(40), nn.Linear(40, 6)).to(device, dtype)


def give_gradients(model: nn.Module, step: int) -> None:
    """Gradients that are a function of the step alone."""
    drawing = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=drawing).to(p.device, p.dtype)


def selected(model: nn.Module, rate: float = 0.2) -> Selection:
    return Selection.random(model.named_parameters(), rate, seed=4)


def assert_same(ours: nn.Module, theirs: nn.Module, same_bits: Callable) -> None:
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert same_bits(p, q), name


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def kept_mask(selection: Selection, name: str, keep: float, seed: int, step: int) -> Tensor:
    """Which entries of a parameter keep their gradient: bool, of its shape."""
    index = selection[name]
    kept = reference.keep_mask(seed, list(selection).index(name), step, selection.count(name), ops.keep_threshold(keep))
    positions = torch.arange(selection.numel(name)) if index is None else index.cpu().long()
    mask = torch.zeros(selection.numel(name), dtype=torch.bool)
    mask[positions[kept]] = True
    return mask.view(selection.shape[name])


# Exact dynamics


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize(
    ("name", "options", "others"),
    [
        ("sgd", {"momentum": 0.0}, {}),
        ("sgd", {"momentum": 0.9}, {"momentum": 0.5}),
        ("adamw", {}, {"betas": (0.5, 0.95), "eps": 1e-3}),
        ("adamw", {"betas": (0.0, 0.99)}, {"betas": (0.0, 0.0)}),
        ("adamw", {"betas": (0.9, 0.0)}, {"eps": 0.5}),
    ],
)
def test_with_everything_kept_it_is_torch_s_own(device, name, options, others, weight_decay) -> None:
    ours, theirs = network(device=device), network(device=device)

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        named = list(model.named_parameters())
        return [{"params": named[:3], "lr": 0.1}, {"params": named[3:], "lr": 0.01, "weight_decay": 0.1, **others}]

    options = {**options, "weight_decay": weight_decay}
    sparse = KINDS[name].sparse(groups(ours), Selection.whole(ours.named_parameters()), **options, keep=1)
    dense = KINDS[name].dense(groups(theirs), **options)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8) for optimizer in (sparse, dense)]
    for step in range(10):
        train(ours, sparse, range(step, step + 1))
        train(theirs, dense, range(step, step + 1))
        for schedule in schedules:
            schedule.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=5e-7)
    assert not torch.equal(ours[0].weight, network(device=device)[0].weight)


def test_a_learning_rate_may_be_a_tensor_and_may_change(kind, device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    rate = torch.tensor(0.1, device=device)
    optimizers = [
        kind.sparse(m.named_parameters(), selected(m), lr=lr) for m, lr in zip(models, (0.1, rate), strict=True)
    ]
    for number, lr in enumerate((0.1, 0.5, 0.0, 0.01)):
        rate.fill_(lr)
        optimizers[0].param_groups[0]["lr"] = lr
        before = models[0][0].weight.clone()
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, optimizer, range(number, number + 1))
        assert torch.equal(before, models[0][0].weight) == (lr == 0)
        assert_same(*models, same_bits)


def test_an_entry_moves_only_in_the_steps_that_keep_it(kind, device, same_bits) -> None:
    """Every entry's own optimiser, one entry at a time, in steps that keep it."""
    model = network(device=device)
    selection = selected(model)
    code = {"0.weight": torch.arange(selection.count("0.weight"), dtype=torch.uint8)}
    values = {name: p.detach().cpu().numpy().copy().ravel() for name, p in model.named_parameters()}
    entries = {
        name: [{state: 0 if state == "updates" else np.float32(0) for state in kind.state} for _ in value]
        for name, value in values.items()
    }
    optimizer = kind.sparse(
        model.named_parameters(), selection, lr=0.1, weight_decay=0.01, keep=0.3, seed=7, step=100,
        scale_code=code, scale_table=TABLE,
    )  # fmt: skip
    for step in range(6):
        before = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        train(model, optimizer, range(step, step + 1))
        for name, p in model.named_parameters():
            index = range(p.numel()) if selection[name] is None else selection[name].tolist()
            mask = kept_mask(selection, name, 0.3, 7, 100 + step)
            gradient, value = p.grad.cpu().numpy().ravel(), values[name]
            for at in mask.flatten().nonzero().flatten().tolist():
                g = gradient[at] * TABLE.numpy()[index.index(at)] if name in code else gradient[at]
                value[at] = kind.slow(entries[name][at], g, value[at])
            assert same_bits(p, torch.from_numpy(value).view(p.shape))
            assert same_bits(p.detach().cpu()[~mask], before[name][~mask])
            for state in kind.state:
                ours = optimizer.state[p][state]
                assert same_bits(ours, torch.tensor([entries[name][at][state] for at in index], dtype=ours.dtype))
    assert optimizer.steps == 106


def test_tensors_without_a_gradient_are_skipped_and_others_draw_the_same(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        models[1][0].weight.grad = None
        for optimizer in optimizers:
            optimizer.step()
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert same_bits(p, q) == (name != "0.weight")
    assert same_bits(models[1][0].weight, network()[0].weight)


def test_it_does_not_matter_how_parameters_are_grouped_nor_which_have_a_gradient_when(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    one_each = [{"params": [pair]} for pair in models[1].named_parameters()]
    named = (models[0].named_parameters(), one_each)
    optimizers = [kind.sparse(given, selected(m), lr=0.1, keep=0.5) for given, m in zip(named, models, strict=True)]
    for step in range(7):
        for model, optimizer in zip(models, optimizers, strict=True):
            give_gradients(model, step)
            for number, p in enumerate(model.parameters()):
                if (number + step) % 3 == 0 or step == 4:
                    p.grad = None
            optimizer.step()
    assert_same(*models, same_bits)
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        for state in kind.state:
            assert same_bits(optimizers[0].state[p][state], optimizers[1].state[q][state])
            assert optimizers[0].state[p][state].any()


def test_gradients_need_not_be_contiguous(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        for p in models[1].parameters():
            p.grad = torch.stack([p.grad, p.grad], dim=-1)[..., 0]
            assert not p.grad.is_contiguous()
        for optimizer in optimizers:
            optimizer.step()
    assert_same(*models, same_bits)


def test_a_sparse_tensor_as_gradient_is_refused(kind) -> None:
    model = nn.Embedding(8, 3, sparse=True)
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    model(torch.tensor([2])).sum().backward()
    with pytest.raises(RuntimeError, match="the gradient of 'weight' is a sparse tensor, expected a dense one"):
        optimizer.step()


def test_16_bit_parameters_follow_their_masters(kind, device, same_bits) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = network(dtype, device)
        wide = network(dtype, device).float()  # the same values
        narrow, exact = (kind.sparse(m.named_parameters(), selected(m), lr=1e-5, keep=0.5) for m in (model, wide))
        for step in range(60):
            train(model, narrow, range(step, step + 1))
            for p, q in zip(model.parameters(), wide.parameters(), strict=True):
                q.grad = p.grad.float()
            exact.step()
        for p, q in zip(model.parameters(), wide.parameters(), strict=True):
            assert same_bits(p, q.to(dtype))
            index = narrow.state[p].get("index", torch.arange(p.numel())).long()
            assert same_bits(narrow.state[p]["master"], q.detach().flatten()[index])
        assert not torch.equal(model[0].weight, network(dtype, device)[0].weight)


def test_a_closure_is_evaluated_with_gradients(kind) -> None:
    model = network()
    optimizer = kind.sparse(model.named_parameters(), selected(model))

    def closure() -> float:
        loss = model(torch.ones(2, 12)).square().mean()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    assert optimizer.steps == 1


# Gradients of every origin


def test_gradients_of_several_backward_passes_add_up(kind, device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        parts = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(step)).to(device)
        for part in parts:
            models[0](part).square().mean().backward()
        for p, q in zip(*(m.parameters() for m in models), strict=True):
            terms = [torch.autograd.grad(models[0](part).square().mean(), p)[0] for part in parts]
            torch.testing.assert_close(p.grad, sum(terms))
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_same(*models, same_bits)
    assert not torch.equal(models[0][0].weight, network(device=device)[0].weight)


def test_clipping_by_the_global_norm_scales_what_a_step_takes(device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    clipped, scaled = (SparseSGD(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        norm = float(nn.utils.clip_grad_norm_(models[0].parameters(), 0.5))
        assert norm > 1  # so that it does something
        for p in models[1].parameters():
            p.grad *= 0.5 / (norm + 1e-6)
        clipped.step()
        scaled.step()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    assert not torch.equal(models[0][0].weight, network(device=device)[0].weight)


def test_tied_weights_are_one_parameter_with_one_gradient(kind, device, same_bits) -> None:
    """A layer under two names: `named_parameters` gives the first, whose gradient is the sum over both uses."""

    def tied() -> nn.Module:
        torch.manual_seed(0)
        model = nn.ModuleDict({"first": nn.Linear(6, 6), "last": nn.Linear(6, 6)}).to(device)
        model["last"].weight = model["first"].weight
        return model

    models = [tied() for _ in range(2)]
    x = torch.ones(2, 6, device=device)
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    assert "last.weight" not in optimizers[0].selection
    for _ in range(3):
        models[0]["last"](models[0]["first"](x)).square().mean().backward()
        loss = models[1]["last"](models[1]["first"](x)).square().mean()
        for p, gradient in zip(models[1].parameters(), torch.autograd.grad(loss, models[1].parameters()), strict=True):
            p.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q)
    assert models[0]["first"].weight is models[0]["last"].weight
    assert not torch.equal(models[0]["first"].weight, tied()["first"].weight)


def test_a_parameter_under_two_names_is_refused(kind) -> None:
    layer = nn.Linear(6, 6)
    pairs = [("first.weight", layer.weight), ("last.weight", layer.weight)]
    with pytest.raises(ValueError, match=r"'first.weight' and 'last.weight' are the same parameter \(tied weights\)"):
        kind.sparse(pairs, Selection.whole(pairs))


def test_a_group_on_several_devices_is_refused_with_what_to_do(kind) -> None:
    pairs = [("a", nn.Parameter(torch.zeros(3))), ("b", nn.Parameter(torch.zeros(3, device="meta")))]
    selection = Selection({"a": None, "b": None}, {"a": (3,), "b": (3,)})
    with pytest.raises(
        ValueError, match=r"'b' is on meta, but 'a' of the same group is on cpu; make a parameter group"
    ):
        kind.sparse(pairs, selection)


@pytest.mark.gpu
def test_groups_on_several_devices_take_the_steps_of_one(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    models[1][2].cuda()
    named = list(models[1].named_parameters())
    groups = [{"params": named[:4]}, {"params": named[4:]}]
    one = kind.sparse(models[0].named_parameters(), selected(models[0]), lr=0.1, keep=0.5)
    several = kind.sparse(groups, selected(models[0]), lr=0.1, keep=0.5)
    train(models[0], one, range(5))
    train(models[1], several, range(5))
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        assert same_bits(p, q.cpu())


@pytest.mark.gpu
def test_gradients_from_another_stream_are_waited_for(kind) -> None:
    """Backward on a stream of its own, and the step on the current one as soon as that is told to wait."""
    models = [network(device="cuda") for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=1) for m in models]
    side = torch.cuda.Stream()
    for step in range(5):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(step)).cuda()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.ones(4096, 4096, device="cuda").matmul(torch.ones(4096, 4096, device="cuda"))  # it lags behind
            models[0](x).square().mean().backward()
        torch.cuda.current_stream().wait_stream(side)
        models[1](x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


# GradScaler


def test_an_infinite_step_changes_nothing_and_is_not_counted(kind, device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    scaled, plain = (kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    scaler = torch.amp.GradScaler(device.type, init_scale=3.0 * 2**10, growth_interval=100)
    for step in range(5):
        for model in models:
            give_gradients(model, step)
        scale = scaler.scale(torch.ones((), device=device))
        for p in models[0].parameters():
            p.grad *= scale
        before = [t.clone() for p in models[0].parameters() for t in (p, *scaled.state[p].values())]
        if step == 2:
            models[0][0].bias.grad[0] = float("inf")
        scaler.step(scaled)
        scaler.update()
        if step == 2:
            after = [t for p in models[0].parameters() for t in (p, *scaled.state[p].values())]
            assert all(same_bits(a, b) for a, b in zip(before, after, strict=True))
            assert scaled.steps == 2
        else:
            plain.step()
    assert scaled.steps == plain.steps == 4
    assert scaler.get_scale() == 3.0 * 2**9
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


# Published dynamics


def test_masked_gradients_with_dense_sgd_are_the_published_dynamics(device: torch.device, same_bits: Callable) -> None:
    ours, theirs = network(device=device), network(device=device)
    selection = selected(ours)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    masked = MaskedGradient(ours.named_parameters(), selection, keep=0.3, seed=5, step=20)
    dense = [torch.optim.SGD(m.parameters(), **options) for m in (ours, theirs)]
    for step in range(10):
        for model in (ours, theirs):
            give_gradients(model, step)
        masked.apply_()
        for name, p in theirs.named_parameters():
            p.grad *= kept_mask(selection, name, 0.3, 5, 20 + step).to(device)
        for optimizer in dense:
            optimizer.step()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
            assert torch.equal(p, q)
    assert masked.steps == 30


def test_both_dynamics_keep_the_same_entries(device: torch.device) -> None:
    model = network(device=device)
    drawing: dict[str, Any] = {"selection": selected(model), "keep": 0.3, "seed": 5, "step": 9}
    code = {"2.weight": torch.full((drawing["selection"].count("2.weight"),), 3, dtype=torch.uint8)}
    drawing |= {"scale_code": code, "scale_table": TABLE}
    optimizer = SparseSGD(model.named_parameters(), **drawing, lr=1.0, momentum=0.0)
    masked = MaskedGradient(model.named_parameters(), **drawing)
    for step in range(4):
        before = [p.detach().clone() for p in model.parameters()]
        train(model, optimizer, range(step, step + 1))
        masked.apply_()
        for p, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(old - p.grad, p)
            assert p.grad.any()


def test_masked_gradients_without_some_gradients_draw_the_same_for_the_others() -> None:
    model = network()
    masked = [MaskedGradient(model.named_parameters(), selected(model), keep=0.3) for _ in range(2)]
    give_gradients(model, 0)
    masked[0].apply_()
    expected = model[2].weight.grad
    give_gradients(model, 0)
    model[0].weight.grad = None
    masked[1].apply_()
    assert torch.equal(model[2].weight.grad, expected)
    assert model[0].weight.grad is None


def test_masked_gradients_go_on_where_a_saved_one_stopped() -> None:
    model = network()
    first = MaskedGradient(model.named_parameters(), selected(model), keep=0.3)
    for step in range(3):
        give_gradients(model, step)
        first.apply_()
    second = MaskedGradient(model.named_parameters(), selected(model), keep=0.3)
    second.load_state_dict(first.state_dict())
    results = []
    for masked in (first, second):
        give_gradients(model, 3)
        masked.apply_()
        results.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# Saving and loading


def saved_run(kind: Kind, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    model = network(dtype)
    selection = selected(model)
    codes = {name: torch.arange(selection.count(name), dtype=torch.uint8) for name in selection.by_score}
    named = list(model.named_parameters())
    groups = [{"params": named[:2], "lr": 0.05}, {"params": named[2:], "lr": 1e-3}]
    return model, kind.sparse(
        groups, selection, weight_decay=0.01, keep=0.4, seed=11, scale_code=codes, scale_table=TABLE
    )


RUNS = [(name, dtype) for name in KINDS for dtype in ("float32", "bfloat16", "float16")]


def save(model: nn.Module, optimizer: Any, folder: Path, *name: str) -> None:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / f"{'-'.join(name)}.pt")


def continue_runs(folder: str) -> None:
    """What the new process does."""
    for run in RUNS:
        model, optimizer = saved_run(KINDS[run[0]], getattr(torch, run[1]))
        half = torch.load(Path(folder) / f"{'-'.join(run)}.pt", weights_only=True)
        model.load_state_dict(half["model"])
        optimizer.load_state_dict(half["optimizer"])
        train(model, optimizer, range(7, 17))
        save(model, optimizer, Path(folder), *run, "end")


def test_runs_go_on_bit_for_bit_in_a_new_process(tmp_path: Path, same_bits: Callable) -> None:
    uninterrupted = {}
    for run in RUNS:
        model, optimizer = saved_run(KINDS[run[0]], getattr(torch, run[1]))
        train(model, optimizer, range(7))
        save(model, optimizer, tmp_path, *run)
        train(model, optimizer, range(7, 17))
        uninterrupted[run] = (model, optimizer)
    code = f"import runpy; runpy.run_path({__file__!r})['continue_runs']({str(tmp_path)!r})"
    environment = os.environ | {"PYTHONPATH": str(Path(ops.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for run, (model, optimizer) in uninterrupted.items():
        end = torch.load(tmp_path / f"{'-'.join(run)}-end.pt", weights_only=True)
        for key, value in model.state_dict().items():
            assert same_bits(value, end["model"][key])
        states = {"index", "scale_code", *KINDS[run[0]].state} | ({"master"} if run[1] != "float32" else set())
        expected = optimizer.state_dict()
        for number, state in expected["state"].items():
            assert set(state) == set(end["optimizer"]["state"][number])
            assert set(state) in (states, states - {"index", "scale_code"})
            for name, value in state.items():
                assert same_bits(value, end["optimizer"]["state"][number][name])
        for group, other in zip(expected["param_groups"], end["optimizer"]["param_groups"], strict=True):
            assert group["step"].item() == other["step"].item() == 17


def test_loading_keeps_every_dtype_and_copies(kind, same_bits) -> None:
    (model, first), (other, second) = saved_run(kind, torch.bfloat16), saved_run(kind, torch.bfloat16)
    train(model, first, range(3))
    second.load_state_dict(first.state_dict())
    ours, theirs = first.state[model[0].weight], second.state[other[0].weight]
    assert set(ours) == set(theirs) == {"index", "master", "scale_code", *kind.state}
    for name in ours:
        assert same_bits(ours[name], theirs[name])
        assert ours[name].data_ptr() != theirs[name].data_ptr()
    assert first.steps == second.steps == 3
    train(other, second, range(1))
    assert (first.steps, second.steps) == (3, 4)


def test_loading_between_steps_goes_back(kind, same_bits) -> None:
    model, optimizer = saved_run(kind, torch.float32)
    train(model, optimizer, range(3))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, range(3, 8))
    expected = copy.deepcopy(model)
    train(model, optimizer, range(20, 25))
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(model, optimizer, range(3, 8))
    assert_same(model, expected, same_bits)
    assert optimizer.steps == 8


def replace_tensors(optimizer: Any, p: Tensor) -> None:
    for name, value in optimizer.state[p].items():
        optimizer.state[p][name] = value.clone()


def replace_state(optimizer: Any, p: Tensor) -> None:
    optimizer.state[p] = {name: value.clone() for name, value in optimizer.state[p].items()}


@pytest.mark.parametrize("places", [[0], [2], [0, 1, 2, 3, 4, 5]], ids=["first", "third", "all"])
@pytest.mark.parametrize("replaced", [replace_tensors, replace_state])
def test_state_that_was_replaced_between_steps_is_used(kind, replaced, places, same_bits) -> None:
    models = [network() for _ in range(2)]
    optimizers = [kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(2))
    for place in places:
        replaced(optimizers[1], list(models[1].parameters())[place])
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, range(2, 5))
    assert_same(*models, same_bits)
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        for state in kind.state:
            assert same_bits(optimizers[0].state[p][state], optimizers[1].state[q][state])


def test_a_group_may_be_added_when_the_selection_has_grown(kind, same_bits) -> None:
    models = [network() for _ in range(2)]
    named = [list(m.named_parameters()) for m in models]
    whole = selected(models[0])
    some = Selection({name: whole[name] for name, _ in named[0][:3]}, {n: whole.shape[n] for n, _ in named[0][:3]})
    grown = kind.sparse(named[0][:3], some, lr=0.1, keep=1)
    train(models[0], grown, range(2))
    some.load_state_dict(whole.state_dict())
    grown.add_param_group({"params": named[0][3:], "lr": 0.01})
    train(models[0], grown, range(2, 5))
    separate = kind.sparse([{"params": named[1][:3]}, {"params": named[1][3:], "lr": 0.01}], whole, lr=0.1, keep=1)
    for step in range(5):
        give_gradients(models[1], step)
        for _, p in named[1][3:]:
            p.grad = p.grad if step >= 2 else None
        separate.step()
    assert_same(*models, same_bits)


# Memory


class Transformer(nn.Module):
    """The parameters of a vision transformer of one block, as wide as ViT-B/16: its share of vectors is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = (nn.Parameter(torch.zeros(1, n, 768)) for n in (1, 197))
        self.patch_embed = nn.Conv2d(3, 768, 16, 16)
        block = nn.TransformerEncoderLayer(768, 12, 3072, norm_first=True, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 1, nn.LayerNorm(768), enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("name", "dtype", "codes", "budget"),
    [
        ("sgd", "float32", True, 0.50),
        ("sgd", "bfloat16", True, 0.75),
        ("sgd", "float16", True, 0.75),
        ("adamw", "float32", False, 0.85),
        ("adamw", "bfloat16", True, 1.15),
        ("adamw", "float16", True, 1.15),
    ],
)
def test_state_stays_within_its_budget_of_bytes_a_parameter(device, name, dtype, codes, budget) -> None:
    model = Transformer().to(device, getattr(torch, dtype))
    selection = Selection.random(model.named_parameters(), 0.05, seed=0, whole="bias|norm")
    scale_code = {name: torch.zeros(selection.count(name), dtype=torch.uint8) for name in selection.by_score if codes}
    optimizer = KINDS[name].sparse(model.named_parameters(), selection, scale_code=scale_code, scale_table=TABLE)
    give_gradients(model, 0)
    optimizer.step()
    state = [t for p in model.parameters() for t in optimizer.state[p].values()]
    bytes_ = sum(t.untyped_storage().nbytes() for t in state)
    parameters = sum(p.numel() for p in model.parameters())
    assert len(state) > (1 + codes + len(KINDS[name].state)) * len(selection.by_score)
    assert 0.8 * budget < bytes_ / parameters <= budget


# Bad input


DRAWING = [
    ({"seed": -1}, "seed is -1, expected 0 to"),
    ({"seed": 2**63}, "seed is 9223372036854775808"),
    ({"keep": 2**-18}, "keep is .* rounds to keeping nothing"),
    ({"keep": 1.5}, "keep is 1.5"),
]
STEPPING = [
    ({"lr": -0.1}, "lr is -0.1, expected 0 or more"),
    ({"lr": float("nan")}, "lr is nan, expected 0 or more"),
    ({"weight_decay": -1}, "weight_decay is -1"),
]
SGD = [({"momentum": -0.1}, "momentum is -0.1")]
ADAMW = [
    ({"eps": -1e-8}, "eps is -1e-08, expected 0 or more"),
    ({"betas": (-0.1, 0.9)}, r"betas\[0\] is -0.1, expected 0 to 0.99998"),
    ({"betas": (0.9, 1.0)}, r"betas\[1\] is 1.0, expected 0 to 0.99998"),
    ({"betas": (0.9, 0.99999)}, r"betas\[1\] is 0.99999"),
    ({"betas": (float("nan"), 0.9)}, r"betas\[0\] is nan"),
]
REFUSED = [
    *((SparseSGD, *case) for case in DRAWING + STEPPING + SGD),
    *((SparseAdamW, *case) for case in DRAWING + STEPPING + ADAMW),
    *((MaskedGradient, *case) for case in DRAWING),
]


@pytest.mark.parametrize(("make", "options", "message"), REFUSED)
def test_settings_out_of_range_are_refused(make: type, options: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        make(model.named_parameters(), selected(model), **options)
    if make is not MaskedGradient and "seed" not in options:
        with pytest.raises(ValueError, match=message):
            make([{"params": model.named_parameters(), **options}], selected(model))


@pytest.mark.parametrize("make", [SparseSGD, SparseAdamW, MaskedGradient])
def test_a_selected_parameter_that_is_missing_or_of_another_shape_is_named(make: type) -> None:
    model = network()
    without = [(name, p) for name, p in model.named_parameters() if name != "2.weight"]
    with pytest.raises(ValueError, match=r"names '2.weight', which is not among the parameters given"):
        make(without, selected(model))
    with pytest.raises(ValueError, match=r"'2.weight' has shape \[40, 6\], but was selected as \[6, 40\]"):
        make([*without, ("2.weight", nn.Parameter(torch.zeros(40, 6)))], selected(model))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (torch.zeros(8, 4).t(), "'a' is not contiguous"),
        (torch.zeros(4, 8, dtype=torch.float64), "'a' is torch.float64, expected float32, bfloat16 or float16"),
    ],
)
def test_parameters_that_the_kernels_cannot_take_are_named(kind, parameter: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind.sparse([("a", nn.Parameter(parameter))], Selection({"a": torch.tensor([1])}, {"a": (4, 8)}))


@pytest.mark.parametrize(
    ("codes", "table", "message"),
    [
        (torch.zeros(2, dtype=torch.uint8), TABLE, r"scale_code of 'a' is torch.uint8 \[2\], expected uint8 \[1\]"),
        (torch.zeros(1), TABLE, r"scale_code of 'a' is torch.float32"),
        (torch.zeros(1, dtype=torch.uint8), None, r"needs scale_table, float32 \[256\]"),
        (torch.zeros(1, dtype=torch.uint8), TABLE[:9], r"needs scale_table, float32 \[256\]"),
    ],
)
def test_codes_that_do_not_fit_are_refused(kind, codes: Tensor, table: Tensor | None, message: str) -> None:
    selection = Selection({"a": torch.tensor([1])}, {"a": (4, 8)})
    with pytest.raises(ValueError, match=message):
        kind.sparse([("a", nn.Parameter(torch.zeros(4, 8)))], selection, scale_code={"a": codes}, scale_table=table)


def test_parameters_without_names_are_refused(kind) -> None:
    model = network()
    with pytest.raises(ValueError, match="must be given with their names"):
        kind.sparse(model.parameters(), selected(model))


@pytest.mark.parametrize(("name", "state"), [(name, state) for name, kind in KINDS.items() for state in kind.state])
def test_an_op_s_error_names_the_parameter(name: str, state: str, same_bits: Callable) -> None:
    model, kind = network(), KINDS[name]
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    give_gradients(model, 0)
    before = copy.deepcopy(model)
    right = optimizer.state[model[2].weight][state]
    optimizer.state[model[2].weight][state] = right.repeat(2)[::2]
    with pytest.raises(RuntimeError, match=rf"{kind.state[state]}\[4\] \('2.weight'\) is not contiguous"):
        optimizer.step()
    assert_same(model, before, same_bits)
    assert optimizer.steps == 0


def test_parameters_outside_the_selection_are_left_out(kind) -> None:
    model = network()
    selection = Selection({"2.weight": torch.tensor([0, 5])}, {"2.weight": (6, 40)})
    train(model, kind.sparse(model.named_parameters(), selection, keep=1), range(3))
    for (name, p), q in zip(model.named_parameters(), network().parameters(), strict=True):
        changed = (p != q).flatten().nonzero().flatten().tolist()
        assert changed == ([0, 5] if name == "2.weight" else [])


def test_a_group_outside_the_selection_is_refused_and_not_added(kind) -> None:
    model = network()
    optimizer = kind.sparse(model.named_parameters(), selected(model))
    with pytest.raises(ValueError, match="'another'"):
        optimizer.add_param_group({"params": [("another", nn.Parameter(torch.zeros(3)))]})
    assert len(optimizer.param_groups) == 1


def test_momentum_can_be_switched_on_later() -> None:
    parameter = torch.nn.Parameter(torch.ones(10))
    optimizer = SparseSGD([("p", parameter)], Selection.whole([("p", parameter)]), lr=0.1, momentum=0.0, keep=1.0)
    assert "momentum" not in optimizer.state[parameter]
    optimizer.param_groups[0]["momentum"] = 0.9
    for _ in range(2):
        parameter.grad = torch.ones(10)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((10,), 1 - 0.1 - 0.19))


# AdamW's own


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 0.0), (0.0, 0.95), (1e-3, 0.9), (0.9, LARGEST_BETA)])
def test_bias_correction_reaches_one(betas: tuple[float, float]) -> None:
    table = bias_correction(*betas, CPU)
    assert table.dtype == torch.float32
    assert table[:, 0].tolist() == [0, 0]
    assert table[:, -1].tolist() == [1, 1]
    assert table.nbytes < 7e6
    n = np.arange(table.shape[1])
    for row, beta, power in zip(table.numpy(), betas, (1, 0.5), strict=True):
        exact = -np.expm1(n * np.log(beta)) if beta else np.minimum(n, 1)
        np.testing.assert_array_max_ulp(row, (exact**power).astype(np.float32), maxulp=1)
        assert (np.diff(row) >= 0).all()


def test_the_first_step_that_keeps_an_entry_moves_it_by_the_learning_rate() -> None:
    """However late it comes: its averages' bias is corrected by its own updates."""
    p = nn.Parameter(torch.zeros(1000))
    optimizer = SparseAdamW([("p", p)], Selection.whole([("p", p)]), lr=0.1, weight_decay=0.0, keep=0.02)
    seen = torch.zeros(1000, dtype=torch.bool)
    for step in range(100):
        p.grad = torch.full((1000,), 0.5 + step)
        optimizer.step()
        first = (p.detach() != 0) & ~seen
        torch.testing.assert_close(p.detach()[first], torch.full((int(first.sum()),), -0.1))
        seen |= first
    assert 800 < seen.sum() < 950


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
