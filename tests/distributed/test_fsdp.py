"""Backbones that are spread over ranks by FSDP2: every rank has its rows, and all together do what one process does."""

from __future__ import annotations

import copy
import pickle
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from processes import together
from torch import Tensor, nn
from torch.distributed import checkpoint as distributed_checkpoint

from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.distributed.fsdp import shard
from mist_ext.distributed.shard import Shard, local, shard_like
from mist_ext.distributed.shard_files import TensorOnDisk, entries_of, fill_, gather_tensors
from mist_ext.kernels import ops
from mist_ext.optim import InBackward, LargestGradientSGD, MaskedGradient, SparseAdamW, SparseSGD
from mist_ext.runs import checkpoint
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity

BATCH = 6  # which 4 ranks do not share out evenly
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": partial(SparseSGD, lr=0.05, momentum=0.9, weight_decay=1e-3, keep=0.3, seed=5),
    # Keys' biases have gradients of rounding errors alone, which a small eps would make steps of.
    "adamw": partial(SparseAdamW, lr=1e-3, eps=1e-2, weight_decay=1e-2, keep=0.3, seed=5),
}


@pytest.fixture(params=[2, 4], ids=["2_ranks", "4_ranks"])
def size(request: pytest.FixtureRequest) -> int:
    return request.param


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


# Selection


def selections() -> dict[str, dict[str, Tensor]]:
    model = spread(vit())
    drawing = torch.Generator().manual_seed(1)
    # Few different scores: most of those at the border are equal.
    scores = {
        name: shard_like(torch.randint(0, 9, p.shape, generator=drawing).float(), p)
        for name, p in model.named_parameters()
    }
    made = {
        "scores": Selection.from_scores(scores, 0.05, "bias|norm"),
        "random": Selection.random(model.named_parameters(), 0.05, 8, "bias|norm"),
        "magnitude": chosen(model),
    }
    index = {"pos_embed": torch.tensor([0, 700, 3263]), "blocks.0.mlp.fc1.weight": torch.arange(0, 147456, 9)}
    shape = {"pos_embed": (1, 17, 192), "blocks.0.mlp.fc1.weight": (768, 192)}
    made["cut"] = Selection(index, shape).local(model.named_parameters())
    return {kind: on_whole_tensors(selection) for kind, selection in made.items()}


def test_all_ranks_together_select_what_one_process_selects(size: int) -> None:
    expected = selections()
    for found in on_ranks(size, selections):
        assert all(same(found[kind], expected[kind]) for kind in expected)


def scored() -> dict[str, Tensor]:
    model = spread(vit())
    with Sensitivity(model.named_parameters()) as sensitivity:
        for step in range(3):
            loss_of(model, step).backward()
    assert all(p.grad is None for p in model.parameters())
    return gather_tensors(sensitivity.scores())


def test_scores_are_those_of_the_joint_batch(size: int) -> None:
    found = on_ranks(size, scored)[0]
    assert close(found, scored(), 1e-4)


def test_a_score_that_is_nan_is_an_error_on_every_rank() -> None:
    def select() -> str:
        model = spread(vit())
        scores = {name: shard_like(torch.zeros(p.shape), p) for name, p in model.named_parameters()}
        if dist.get_rank() == 1:
            local(scores["blocks.1.mlp.fc1.weight"])[3, 3] = float("nan")
        with pytest.raises(ValueError, match=r"score.*blocks\.1\.mlp\.fc1\.weight") as error:
            Selection.from_scores(scores, 0.05)
        return str(error.value)

    first, second = on_ranks(2, select)
    assert first == second


# Steps


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


def give_gradients(model: nn.Module, step: int) -> None:
    drawing = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = shard_like(torch.randn(parameter.shape, generator=drawing), parameter)


def stepped(kind: str) -> dict[str, Tensor]:
    model = spread(vit())
    optimizer = OPTIMIZERS[kind](model.named_parameters(), chosen(model))
    for step in range(3):
        give_gradients(model, step)
        optimizer.step()
    return whole(model)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_same_gradients_have_the_same_entries_kept_and_give_the_same_bits(kind: str, size: int) -> None:
    before, expected = dict(vit().named_parameters()), stepped(kind)
    assert same(on_ranks(size, partial(stepped, kind))[0], expected)
    changed = torch.cat([(expected[name] != before[name]).flatten() for name in expected])
    assert 0.02 < changed.float().mean() < 0.05


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_ranks_tune_as_one_process_on_the_joint_batch(kind: str, size: int) -> None:
    found = on_ranks(size, partial(tuned, kind, 6))
    assert close(found[0], tuned(kind, 6))
    assert found[1] == {}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_in_backward_have_the_same_bits(kind: str) -> None:
    after = on_ranks(2, partial(tuned, kind, 4))[0]
    within = on_ranks(2, partial(tuned, kind, 4, in_backward=True))[0]
    assert same(within, after)


def masked() -> dict[str, Tensor]:
    model = spread(vit())
    mask = MaskedGradient(model.named_parameters(), chosen(model), keep=0.3, seed=5)
    give_gradients(model, 0)
    mask.apply_()
    return gather_tensors({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def test_masked_gradients_are_those_of_one_process(size: int) -> None:
    expected = masked()
    assert same(on_ranks(size, masked)[0], expected)
    assert 0.01 < torch.cat([g.flatten() for g in expected.values()]).ne(0).float().mean() < 0.03


def test_a_selection_of_whole_tensors_is_refused_for_sharded_ones() -> None:
    def make() -> None:
        selection = chosen(vit())
        with pytest.raises(ValueError, match=r"'cls_token' is sharded, but was selected whole; .*selection\.local"):
            SparseSGD(spread(vit()).named_parameters(), selection)

    on_ranks(2, make)


def test_what_parts_cannot_do_is_refused() -> None:
    def refused() -> None:
        model = spread(vit())
        with pytest.raises(ValueError, match="'cls_token' is sharded, but its largest gradients show in the whole"):
            LargestGradientSGD(model.named_parameters(), Selection.whole(model.named_parameters()))
        optimizer = OPTIMIZERS["sgd"](model.named_parameters(), chosen(model))
        optimizer.grad_scale = torch.tensor(2.0)  # as GradScaler hands it over
        with pytest.raises(RuntimeError, match="GradScaler cannot be used with sharded parameters"):
            optimizer.step()

    on_ranks(2, refused)


# Memory


def bytes_held() -> int:
    """Of parameters, scores, index, momentum, strikes and frozen entries, as tensors take them."""
    model = spread(timm.create_model("vit_tiny_patch16_224", num_classes=0))
    parameters = dict(model.named_parameters())
    sensitivity = Sensitivity(parameters.items())
    selection = chosen(model)
    optimizer = SparseSGD(parameters.items(), selection, momentum=0.9)
    strikes = [torch.zeros(selection.numel(name), dtype=torch.uint8) for name in selection.by_score]
    frozen = [ops.pack_bits(entries.bool()) for entries in strikes]
    held = [*parameters.values(), *sensitivity.scores().values(), *strikes, *frozen]
    held += [value for state in optimizer.state.values() for value in state.values()]
    return sum(local(tensor).untyped_storage().nbytes() for tensor in held)


def test_a_rank_holds_its_share_of_the_bytes(size: int) -> None:
    alone = bytes_held()
    assert all(held <= (1 / size + 0.05) * alone for held in on_ranks(size, bytes_held))


# Checkpoints


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


@pytest.mark.parametrize(("kind", "before", "after"), [("sgd", 2, 4), ("adamw", 4, 2), ("adamw", 2, 1), ("sgd", 1, 2)])
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
