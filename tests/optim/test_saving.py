"""A sparse optimiser's state: saved and loaded, replaced, and grown by a group."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import KINDS, TABLE, Kind, assert_same, give_gradients, network, selected, train
from torch import Tensor, nn

from mist_ext.kernels import ops
from mist_ext.selection import Selection


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
    paths = [str(Path(ops.__file__).parents[2]), str(Path(__file__).parents[1] / "support")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
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
