"""Which entries a step of SparseSGD and SparseAdamW moves, and by how much."""

from __future__ import annotations

import cProfile
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import KINDS, TABLE, assert_same, give_gradients, kept_mask, network, selected, train
from torch import nn

from mist_ext.optim import SparseAdamW, SparseSGD
from mist_ext.selection import Selection

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


SLOW = {SparseSGD: slow_sgd, SparseAdamW: slow_adamw}  # the step of one entry


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


def test_momentum_can_be_switched_on_later() -> None:
    parameter = torch.nn.Parameter(torch.ones(10))
    optimizer = SparseSGD([("p", parameter)], Selection.whole([("p", parameter)]), lr=0.1, momentum=0.0, keep=1.0)
    assert "momentum" not in optimizer.state[parameter]
    optimizer.param_groups[0]["momentum"] = 0.9
    for _ in range(2):
        parameter.grad = torch.ones(10)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((10,), 1 - 0.1 - 0.19))


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
                value[at] = SLOW[kind.sparse](entries[name][at], g, value[at])
            assert same_bits(p, torch.from_numpy(value).view(p.shape))
            assert same_bits(p.detach().cpu()[~mask], before[name][~mask])
            for state in kind.state:
                ours = optimizer.state[p][state]
                assert same_bits(ours, torch.tensor([entries[name][at][state] for at in index], dtype=ours.dtype))
    assert optimizer.steps == 106


def test_parameters_outside_the_selection_are_left_out(kind) -> None:
    model = network()
    selection = Selection({"2.weight": torch.tensor([0, 5])}, {"2.weight": (6, 40)})
    train(model, kind.sparse(model.named_parameters(), selection, keep=1), range(3))
    for (name, p), q in zip(model.named_parameters(), network().parameters(), strict=True):
        changed = (p != q).flatten().nonzero().flatten().tolist()
        assert changed == ([0, 5] if name == "2.weight" else [])


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


def test_a_step_takes_few_calls_of_python_a_tensor(kind) -> None:
    """What a step costs besides its kernels grows with them (bench/overhead.py times it)."""

    def calls(tensors: int) -> int:
        parameters = [(f"p{t}", nn.Parameter(torch.ones(4, 8))) for t in range(tensors)]
        optimizer = kind.sparse(parameters, Selection.magnitude(parameters, rate=0.1))
        for _, parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        profile = cProfile.Profile()
        profile.runcall(optimizer.step)
        return sum(entry.callcount for entry in profile.getstats())

    assert (calls(120) - calls(20)) / 100 <= 20
