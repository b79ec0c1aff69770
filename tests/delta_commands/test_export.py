"""Exports are read by those that they are for: safetensors alone, and peft."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mist_ext.deltas import TaskDelta, state_digest
from mist_ext.deltas.change import Change
from mist_ext.deltas.exports import shira


def test_a_state_dict_is_base_and_deltas(mist: Callable, files, tmp_path: Path) -> None:
    out = tmp_path / "tuned.safetensors"
    arguments = ["--form", "state_dict", "--base", files.checkpoints[0], "--out", out]
    assert mist("export", *files.paths, *arguments)[0] == 0
    assert state_digest(load_file(out)) == state_digest(files.models[3])


def test_indices_and_values_are_put_in_place_by_torch_alone(mist: Callable, files, tmp_path: Path) -> None:
    out = tmp_path / "patch.safetensors"
    assert mist("export", *files.paths, "--form", "indices", "--out", out)[0] == 0
    patch, state = load_file(out), copy.deepcopy(files.models[0]).state_dict()
    for key, value in patch.items():
        name, _, kind = key.rpartition(".")
        if kind == "values":
            assert patch[f"{name}.indices"].dtype == torch.int32
            state[name].view(-1).index_copy_(0, patch[f"{name}.indices"].long(), value)
        elif kind != "indices":
            state[key].copy_(value)
    assert state_digest(state) == state_digest(files.models[3])
    assert any(key.endswith(".values") for key in patch)
    assert "norm.weight" in patch  # as a whole


def test_peft_loads_the_adapter(mist: Callable, files, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    status, output, errors = mist("export", *files.paths, "--form", "shira", "--out", out)
    assert status == 0, errors
    assert "apply the delta" in output
    model = copy.deepcopy(files.models[0])
    TaskDelta.load(out / "rest.safetensors").apply_(model)
    adapted = PeftModel.from_pretrained(model, str(out)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, expected, found = files.models[0](images), files.models[3](images), adapted(images)
        merged = adapted.merge_and_unload()(images)
    assert float((expected - before).abs().max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)


def test_the_adapter_has_the_names_and_sizes_of_peft_s_own(mist: Callable, files, tmp_path: Path) -> None:
    from peft import ShiraConfig, get_peft_model

    mist("export", *files.paths, "--form", "shira", "--out", tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    settings = ShiraConfig(r=config["r"], target_modules=config["target_modules"])
    get_peft_model(copy.deepcopy(files.models[0]), settings).save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert {name: (value.dtype, value.shape) for name, value in ours.items()} == {
        name: (value.dtype, value.shape) for name, value in theirs.items()
    }


def test_what_shira_cannot_hold_is_refused() -> None:
    def changed(name: str, shape: tuple[int, ...]) -> TaskDelta:
        return TaskDelta({name: Change(shape, torch.float32, None, torch.zeros(shape), torch.ones(shape))}, "base")

    with pytest.raises(ValueError, match="'fc' changes 12 entries, which takes r = 2; but peft allows 'fc' of shape"):
        shira(changed("fc.weight", (3, 4)))
    with pytest.raises(ValueError, match="changes no weight of a linear layer"):
        shira(changed("fc.bias", (3,)))


def test_shira_takes_no_memory_for_what_a_matrix_does_not_change() -> None:
    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = func(*args, **(kwargs or {}))
            self.entries = max([self.entries, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
            return made

    positions = torch.tensor([1, 5, 8_999_999], dtype=torch.int32)
    change = Change((3000, 3000), torch.float32, positions, torch.zeros(3), torch.ones(3))
    with Largest() as largest:
        tensors, config, _ = shira(TaskDelta({"fc.weight": change}, "base"))
    assert largest.entries <= 20_000
    assert config["r"] == 1
    rows, columns = tensors["base_model.model.fc.shira_indices"].long()
    flat, values = rows * 3000 + columns, tensors["base_model.model.fc.shira_weight"]
    assert len(flat.unique()) == 6000
    assert flat[values != 0].tolist() == positions.tolist()


def test_an_adapter_s_folder_is_not_replaced_unasked(mist: Callable, files, tmp_path: Path) -> None:
    assert mist("export", files.paths[0], "--form", "shira", "--out", tmp_path)[0] == 0
    before = (tmp_path / "adapter_model.safetensors").read_bytes()
    status, _, errors = mist("export", files.paths[1], "--form", "shira", "--out", tmp_path)
    assert status == 2
    assert "has adapter_model.safetensors already" in errors
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before
    assert mist("export", files.paths[1], "--form", "shira", "--out", tmp_path, "--overwrite")[0] == 0
