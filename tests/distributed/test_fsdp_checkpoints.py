"""Checkpoints of sharded backbones: saved by some ranks, loaded by any other number of them."""

from __future__ import annotations

import copy
import pickle
import resource
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sharded_networks import (
    OPTIMIZERS,
    chosen,
    close,
    go_on,
    on_ranks,
    same,
    spread,
    tuned,
    vit,
    whole,
)
from torch import Tensor
from torch.distributed import checkpoint as distributed_checkpoint

from mist_ext.distributed.shard import Shard
from mist_ext.distributed.shard_files import TensorOnDisk, entries_of, fill_
from mist_ext.runs import checkpoint
from mist_ext.selection import Selection


def begun(kind: str, folder: Path) -> None:
    model = spread(vit())
    selection = chosen(model)
    optimizer = OPTIMIZERS[kind](model.named_parameters(), selection)
    go_on(model, optimizer, 0, 3)
    parameters = dict(model.named_parameters())
    state = {"model": parameters, "selection": selection.state_dict(), "optimizer": optimizer.state_dict()}
    checkpoint.save(folder, state)


def resumed(kind: str, folder: Path) -> dict[str, Tensor]:
    state = read(folder)
    model = spread(vit())
    fill_(dict(model.named_parameters()), state["model"])
    selection = Selection({}, {})
    selection.load_state_dict(state["selection"], model.named_parameters())
    optimizer = OPTIMIZERS[kind](model.named_parameters(), selection)
    optimizer.load_state_dict(state["optimizer"])
    checkpoint.save(folder, {**state, "optimizer": optimizer.state_dict()})  # what was loaded can be saved
    go_on(model, optimizer, 3, 6)
    return whole(model)


def read(folder: Path) -> dict[str, Any]:
    state = checkpoint.load_latest(folder, pytest.fail)
    assert state is not None
    return state


@pytest.mark.parametrize(("kind", "before", "after"), [("sgd", 2, 4), ("adamw", 4, 2), ("adamw", 1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(kind: str, before: int, after: int, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    on_ranks(before, partial(begun, kind, folder))
    found = on_ranks(after, partial(resumed, kind, folder))[0]
    assert close(found, tuned(kind, 6))


def bits_of(saved: Any) -> dict[str, Tensor]:
    """Every tensor of a state, with the path to it."""
    if isinstance(saved, dict):
        return {f"{key}/{name}": value for key, entry in saved.items() for name, value in bits_of(entry).items()}
    return {"": entries_of(saved)} if isinstance(saved, Tensor | TensorOnDisk) else {}


@pytest.mark.slow
def test_compact_masters_of_16_bit_weights_keep_their_bits(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def save() -> None:
        model = spread(vit().to(torch.bfloat16))
        optimizer = OPTIMIZERS["adamw"](model.named_parameters(), chosen(model))
        go_on(model, optimizer, 0, 2)
        checkpoint.save(first, {"optimizer": optimizer.state_dict()})

    def load() -> None:
        model = spread(vit().to(torch.bfloat16))
        optimizer = OPTIMIZERS["adamw"](model.named_parameters(), chosen(model))
        optimizer.load_state_dict(read(first)["optimizer"])
        checkpoint.save(second, {"optimizer": optimizer.state_dict()})

    on_ranks(2, save)
    on_ranks(4, load)
    found = bits_of(read(second))
    assert same(found, bits_of(read(first)))
    assert any(name.endswith("master/") for name in found)


@pytest.mark.slow
def test_torchs_own_distributed_checkpoints_work_too(tmp_path: Path) -> None:
    def save() -> None:
        model = spread(vit())
        optimizer = OPTIMIZERS["adamw"](model.named_parameters(), chosen(model))
        go_on(model, optimizer, 0, 3)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        distributed_checkpoint.save(state, checkpoint_id=tmp_path / "checkpoint")

    def load() -> dict[str, Tensor]:
        model = spread(vit())
        optimizer = OPTIMIZERS["adamw"](model.named_parameters(), chosen(model))
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        distributed_checkpoint.load(state, checkpoint_id=tmp_path / "checkpoint")
        optimizer.load_state_dict(state["optimizer"])
        go_on(model, optimizer, 3, 6)
        return whole(model)

    on_ranks(2, save)
    assert close(on_ranks(4, load)[0], tuned("adamw", 6))


def test_parts_can_be_copied_and_pickled() -> None:
    part = Shard(torch.arange(4.0), 3, 9)
    for again in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert (again.first, again.total, again.tolist()) == (3, 9, [0, 1, 2, 3])
        assert again.data_ptr() != part.data_ptr()


def test_a_damaged_shard_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    on_ranks(2, partial(begun, "sgd", folder))
    (shard_file, *_) = sorted((folder / "000001" / "shards").iterdir())
    content = bytearray(shard_file.read_bytes())
    content[-1] ^= 1
    shard_file.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=rf"{shard_file.name} does not have its checksum"):
        checkpoint.load_latest(folder, pytest.fail)


def test_a_checkpoint_that_one_rank_cannot_write_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"

    def fill_the_disk() -> str:
        begun("sgd", folder)
        if dist.get_rank() == 1:  # no file may be larger, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="rank 1 cannot write") as error:
            begun("sgd", folder)
        return str(error.value)

    first, second = on_ranks(2, fill_the_disk)
    assert first == second
    assert bits_of(read(folder))
