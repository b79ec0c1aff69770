"""SparseSGD and MaskedGradient: exact and published dynamics, state through saving and loading, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mist_ext import ops, reference
from mist_ext.optim import MaskedGradient, SparseSGD
from mist_ext.selection import Selection

TABLE = torch.tensor(0.9, dtype=torch.float64).pow(torch.arange(256)).float()


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
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_everything_kept_it_is_torch_s_sgd(device: torch.device, momentum: float, weight_decay: float) -> None:
    ours, theirs = network(device=device), network(device=device)
    options = {"momentum": momentum, "weight_decay": weight_decay}

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        named = list(model.named_parameters())
        return [{"params": named[:3], "lr": 0.1}, {"params": named[3:], "lr": 0.01, "weight_decay": 0.1}]

    sparse = SparseSGD(groups(ours), Selection.whole(ours.named_parameters()), **options, keep=1)
    dense = torch.optim.SGD(groups(theirs), **options)
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8) for optimizer in (sparse, dense)]
    for step in range(10):
        train(ours, sparse, range(step, step + 1))
        train(theirs, dense, range(step, step + 1))
        for schedule in schedules:
            schedule.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert not torch.equal(ours[0].weight, network(device=device)[0].weight)


def test_a_learning_rate_may_be_a_tensor_and_may_change(device: torch.device, same_bits: Callable) -> None:
    models = [network(device=device) for _ in range(2)]
    rate = torch.tensor(0.1, device=device)
    optimizers = [
        SparseSGD(m.named_parameters(), selected(m), lr=lr) for m, lr in zip(models, (0.1, rate), strict=True)
    ]
    for number, lr in enumerate((0.1, 0.5, 0.0, 0.01)):
        rate.fill_(lr)
        optimizers[0].param_groups[0]["lr"] = lr
        before = models[0][0].weight.clone()
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, optimizer, range(number, number + 1))
        assert torch.equal(before, models[0][0].weight) == (lr == 0)
        for p, q in zip(*(m.parameters() for m in models), strict=True):
            assert same_bits(p, q)


def test_an_entry_moves_only_in_the_steps_that_keep_it(device: torch.device, same_bits: Callable) -> None:
    """Every entry's own SGD, one entry at a time, in steps that keep it."""
    model = network(device=device)
    selection = selected(model)
    code = {"0.weight": torch.arange(selection.count("0.weight"), dtype=torch.uint8)}
    values = {name: p.detach().cpu().numpy().copy().ravel() for name, p in model.named_parameters()}
    buffers = {name: np.zeros_like(value) for name, value in values.items()}
    optimizer = SparseSGD(
        model.named_parameters(), selection, lr=0.1, momentum=0.9, weight_decay=0.01, keep=0.3, seed=7, step=100,
        scale_code=code, scale_table=TABLE,
    )  # fmt: skip
    lr, momentum, decay = np.float32(0.1), np.float32(0.9), np.float32(0.01)
    for step in range(6):
        before = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        train(model, optimizer, range(step, step + 1))
        for name, p in model.named_parameters():
            mask = kept_mask(selection, name, 0.3, 7, 100 + step)
            gradient, value, buffer = p.grad.cpu().numpy().ravel(), values[name], buffers[name]
            for at in mask.flatten().nonzero().flatten().tolist():
                g = gradient[at]
                if name in code:
                    g = g * TABLE.numpy()[selection[name].tolist().index(at)]
                buffer[at] = momentum * buffer[at] + (g + decay * value[at])
                value[at] = value[at] - lr * buffer[at]
            assert same_bits(p, torch.from_numpy(value).view(p.shape))
            assert same_bits(p.detach().cpu()[~mask], before[name][~mask])
    assert optimizer.steps == 106


def test_tensors_without_a_gradient_are_skipped_and_others_draw_the_same(same_bits: Callable) -> None:
    models = [network() for _ in range(2)]
    optimizers = [SparseSGD(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models]
    for step in range(3):
        for model in models:
            give_gradients(model, step)
        models[1][0].weight.grad = None
        for optimizer in optimizers:
            optimizer.step()
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert same_bits(p, q) == (name != "0.weight")
    assert same_bits(models[1][0].weight, network()[0].weight)


def test_16_bit_parameters_follow_their_masters(device: torch.device, same_bits: Callable) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = network(dtype, device)
        wide = network(dtype, device).float()  # the same values
        narrow, exact = (SparseSGD(m.named_parameters(), selected(m), lr=1e-5, keep=0.5) for m in (model, wide))
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


def test_a_closure_is_evaluated_with_gradients() -> None:
    model = network()
    optimizer = SparseSGD(model.named_parameters(), selected(model))

    def closure() -> float:
        loss = model(torch.ones(2, 12)).square().mean()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    assert optimizer.steps == 1


# GradScaler


def test_an_infinite_step_changes_nothing_and_is_not_counted(device: torch.device, same_bits: Callable) -> None:
    models = [network(device=device) for _ in range(2)]
    scaled, plain = (SparseSGD(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
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


def saved_run(dtype: torch.dtype) -> tuple[nn.Module, SparseSGD]:
    model = network(dtype)
    selection = selected(model)
    codes = {name: torch.arange(selection.count(name), dtype=torch.uint8) for name in selection.by_score}
    named = list(model.named_parameters())
    groups = [{"params": named[:2], "lr": 0.05}, {"params": named[2:], "lr": 1e-3}]
    return model, SparseSGD(
        groups, selection, weight_decay=0.01, keep=0.4, seed=11, scale_code=codes, scale_table=TABLE
    )


def continue_run(folder: str) -> None:
    """What the new process does."""
    for name in ("float32", "bfloat16", "float16"):
        model, optimizer = saved_run(getattr(torch, name))
        half = torch.load(Path(folder) / f"{name}.pt", weights_only=True)
        model.load_state_dict(half["model"])
        optimizer.load_state_dict(half["optimizer"])
        train(model, optimizer, range(7, 17))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / f"{name}-end.pt")


def test_a_run_goes_on_bit_for_bit_in_a_new_process(tmp_path: Path, same_bits: Callable) -> None:
    uninterrupted = {}
    for name in ("float32", "bfloat16", "float16"):
        model, optimizer = saved_run(getattr(torch, name))
        train(model, optimizer, range(7))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / f"{name}.pt")
        train(model, optimizer, range(7, 17))
        uninterrupted[name] = (model, optimizer)
    code = f"import runpy; runpy.run_path({__file__!r})['continue_run']({str(tmp_path)!r})"
    environment = os.environ | {"PYTHONPATH": str(Path(ops.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    for name, (model, optimizer) in uninterrupted.items():
        end = torch.load(tmp_path / f"{name}-end.pt", weights_only=True)
        for key, value in model.state_dict().items():
            assert same_bits(value, end["model"][key])
        kinds = {"index", "momentum", "scale_code"} | ({"master"} if name != "float32" else set())
        expected = optimizer.state_dict()
        for number, state in expected["state"].items():
            assert set(state) == set(end["optimizer"]["state"][number])
            assert set(state) in (kinds, kinds - {"index", "scale_code"})
            for kind, value in state.items():
                assert same_bits(value, end["optimizer"]["state"][number][kind])
        for group, other in zip(expected["param_groups"], end["optimizer"]["param_groups"], strict=True):
            assert group["step"].item() == other["step"].item() == 17


@pytest.mark.parametrize("kind", ["index", "momentum", "master", "scale_code"])
def test_loading_keeps_every_dtype_and_copies(kind: str, same_bits: Callable) -> None:
    (model, first), (other, second) = saved_run(torch.bfloat16), saved_run(torch.bfloat16)
    train(model, first, range(3))
    second.load_state_dict(first.state_dict())
    ours, theirs = first.state[model[0].weight][kind], second.state[other[0].weight][kind]
    assert same_bits(ours, theirs)
    assert ours.data_ptr() != theirs.data_ptr()
    assert first.steps == second.steps == 3
    train(other, second, range(1))
    assert (first.steps, second.steps) == (3, 4)


# Memory


class Transformer(nn.Module):
    """The parameters of a small vision transformer, width 192 and three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = (nn.Parameter(torch.zeros(1, n, 192)) for n in (1, 197))
        self.patch_embed = nn.Conv2d(3, 192, 16, 16)
        block = nn.TransformerEncoderLayer(192, 3, 768, norm_first=True, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 3, nn.LayerNorm(192), enable_nested_tensor=False)


@pytest.mark.parametrize(("dtype", "budget"), [("float32", 0.50), ("bfloat16", 0.75), ("float16", 0.75)])
def test_state_stays_within_its_budget_of_bytes_a_parameter(device: torch.device, dtype: str, budget: float) -> None:
    model = Transformer().to(device, getattr(torch, dtype))
    selection = Selection.random(model.named_parameters(), 0.05, seed=0, whole="bias|norm")
    codes = {name: torch.zeros(selection.count(name), dtype=torch.uint8) for name in selection.by_score}
    optimizer = SparseSGD(model.named_parameters(), selection, scale_code=codes, scale_table=TABLE)
    give_gradients(model, 0)
    optimizer.step()
    state = [t for p in model.parameters() for t in optimizer.state[p].values()]
    bytes_ = sum(t.untyped_storage().nbytes() for t in state)
    parameters = sum(p.numel() for p in model.parameters())
    assert len(state) > 3 * len(selection.by_score)
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
    ({"momentum": -0.1}, "momentum is -0.1"),
    ({"weight_decay": -1}, "weight_decay is -1"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [(SparseSGD, *case) for case in DRAWING + STEPPING] + [(MaskedGradient, *case) for case in DRAWING],
)
def test_settings_out_of_range_are_refused(make: type, options: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        make(model.named_parameters(), selected(model), **options)


@pytest.mark.parametrize("make", [SparseSGD, MaskedGradient])
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
def test_parameters_that_the_kernels_cannot_take_are_named(parameter: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseSGD([("a", nn.Parameter(parameter))], Selection({"a": torch.tensor([1])}, {"a": (4, 8)}))


@pytest.mark.parametrize(
    ("codes", "table", "message"),
    [
        (torch.zeros(2, dtype=torch.uint8), TABLE, r"scale_code of 'a' is torch.uint8 \[2\], expected uint8 \[1\]"),
        (torch.zeros(1), TABLE, r"scale_code of 'a' is torch.float32"),
        (torch.zeros(1, dtype=torch.uint8), None, r"needs scale_table, float32 \[256\]"),
        (torch.zeros(1, dtype=torch.uint8), TABLE[:9], r"needs scale_table, float32 \[256\]"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Tensor, table: Tensor | None, message: str) -> None:
    selection = Selection({"a": torch.tensor([1])}, {"a": (4, 8)})
    with pytest.raises(ValueError, match=message):
        SparseSGD([("a", nn.Parameter(torch.zeros(4, 8)))], selection, scale_code={"a": codes}, scale_table=table)


def test_parameters_without_names_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="must be given with their names"):
        SparseSGD(model.parameters(), selected(model))


def test_an_op_s_error_names_the_parameter(same_bits: Callable) -> None:
    model = network()
    optimizer = SparseSGD(model.named_parameters(), selected(model))
    give_gradients(model, 0)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.state[model[2].weight]["momentum"] = torch.zeros(2 * selected(model).count("2.weight"))[::2]
    with pytest.raises(RuntimeError, match=r"momentum_buffer\[4\] \('2.weight'\) is not contiguous"):
        optimizer.step()
    assert all(same_bits(old, p) for old, p in zip(before, model.parameters(), strict=True))
    assert optimizer.steps == 0


def test_parameters_outside_the_selection_are_left_out(same_bits: Callable) -> None:
    model = network()
    selection = Selection({"2.weight": torch.tensor([0, 5])}, {"2.weight": (6, 40)})
    train(model, SparseSGD(model.named_parameters(), selection, keep=1), range(3))
    for (name, p), q in zip(model.named_parameters(), network().parameters(), strict=True):
        changed = (p != q).flatten().nonzero().flatten().tolist()
        assert changed == ([0, 5] if name == "2.weight" else [])


def test_momentum_can_be_switched_on_later() -> None:
    parameter = torch.nn.Parameter(torch.ones(10))
    optimizer = SparseSGD([("p", parameter)], Selection.whole([("p", parameter)]), lr=0.1, momentum=0.0, keep=1.0)
    assert "momentum" not in optimizer.state[parameter]
    optimizer.param_groups[0]["momentum"] = 0.9
    for _ in range(2):
        parameter.grad = torch.ones(10)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((10,), 1 - 0.1 - 0.19))
