"""Backbones that FSDP2 shards over ranks: every rank has its rows, and all together do what one process does."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
import torch.distributed as dist
from sharded_networks import (
    OPTIMIZERS,
    chosen,
    close,
    loss_of,
    on_ranks,
    on_whole_tensors,
    same,
    spread,
    tuned,
    vit,
    whole,
)
from torch import Tensor, nn

from mist_ext.distributed.shard import local, shard_like
from mist_ext.distributed.shard_files import gather_tensors
from mist_ext.kernels import ops
from mist_ext.optim import LargestGradientSGD, MaskedGradient, SparseSGD
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity

EACH_WITH = [("sgd", 2), ("adamw", 4)]  # optimisers and numbers of ranks


@pytest.fixture(params=[2, 4], ids=["2_ranks", "4_ranks"])
def size(request: pytest.FixtureRequest) -> int:
    return request.param


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


def test_scores_are_those_of_the_joint_batch() -> None:
    found = on_ranks(4, scored)[0]
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


@pytest.mark.parametrize(("kind", "size"), EACH_WITH)
def test_the_same_gradients_have_the_same_entries_kept_and_give_the_same_bits(kind: str, size: int) -> None:
    before, expected = dict(vit().named_parameters()), stepped(kind)
    assert same(on_ranks(size, partial(stepped, kind))[0], expected)
    changed = torch.cat([(expected[name] != before[name]).flatten() for name in expected])
    assert 0.02 < changed.float().mean() < 0.05


@pytest.mark.parametrize(("kind", "size"), EACH_WITH)
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


def test_masked_gradients_are_those_of_one_process() -> None:
    expected = masked()
    assert same(on_ranks(2, masked)[0], expected)
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
