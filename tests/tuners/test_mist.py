"""The MIST tuner on a small transformer: what each task scores, selects, changes, counts and freezes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import mist_ext.tuners.sparse as sparse_module
from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.indices import selected_count
from mist_ext.kernels import ops, reference
from mist_ext.optim import SparseSGD
from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.tuner import TuningOptions
from mist_ext.tuners.views import TwoViews

COUNT, BATCH = 20, 8  # three batches, the last one short


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images(seed: int = 0, count: int = COUNT) -> Images:
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 4)


def tuner(seed: int = 1, **options: Any) -> MIST:
    return MIST(backbone(), TuningOptions(**{"epochs": 2, "batch_size": BATCH, "in_backward": False, **options}), seed)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def spied(t: MIST) -> list[Selection]:
    """The selections that a tuner makes, as it makes them."""
    made: list[Selection] = []
    select = t.select

    def recording(*arguments: Any) -> Selection:
        result = select(*arguments)
        made.append(result)
        return result

    t.select = recording  # type: ignore[method-assign]
    return made


def losses(t: MIST, task: int, epoch: int, data: Images) -> Any:
    """The losses of an epoch's batches, written out."""
    views = TwoViews()
    order = (t.seed, "order", task, epoch)
    for step, (pixels, labels) in enumerate(Batches(data, BATCH, order)):
        both = views(pixels, draw_seed(t.seed, "views", task, epoch, step))
        yield t.objective(t.backbone(both), labels)


def test_the_scoring_epoch_changes_nothing(same_bits: Callable) -> None:
    t = tuner(epochs=1)
    before = values(t.backbone) | values(t.objective)
    tuned = t.tune(images())
    after = values(t.backbone) | values(t.objective)
    assert all(same_bits(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in t.backbone.parameters())
    assert (t.steps, tuned.changed) == (0, [])
    assert t.history.strikes  # it was a task all the same


def test_the_entries_with_the_largest_squared_gradients_are_selected() -> None:
    t = tuner(epochs=1, rate=0.1)
    t.backbone.train()
    named = [(name, p) for name, p in t.named_parameters()]
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in named}
    for loss in losses(t, 0, 0, images()):
        for (name, _), g in zip(named, torch.autograd.grad(loss, [p for _, p in named]), strict=True):
            total[name] += g.double() ** 2
    (selections, _) = (spied(t), t.tune(images()))
    (selection,) = selections
    assert list(selection) == [name for name, _ in named]
    for name, p in named:
        if p.ndim <= 1 or "norm" in name or name.startswith("projector"):
            assert selection[name] is None
            continue
        k = selected_count(p.numel(), 0.1)
        highest = total[name].flatten().topk(k).indices.tolist()
        assert len(selection[name]) == k
        assert len(set(highest) & set(selection[name].tolist())) >= 0.99 * k  # but for rounding at the border


@pytest.mark.parametrize("drop", ["gradients", "updates"])
def test_a_twentieth_is_selected_and_about_half_a_percent_changes_in_a_step(drop: str) -> None:
    t = tuner(epochs=21, rate=0.05, keep=0.1, drop=drop)
    tuned = t.tune(images(count=BATCH))
    assert tuned.selected_fraction == pytest.approx(0.05, abs=0.001)
    assert len(tuned.kept) == len(tuned.changed) == 20
    assert all(0 < changed <= kept for changed, kept in zip(tuned.changed, tuned.kept, strict=True))
    assert sum(tuned.changed) / 20 <= 0.0055
    assert sum(tuned.kept) / 20 == pytest.approx(0.005, rel=0.1)


def test_a_step_changes_only_what_is_selected_and_kept(monkeypatch: pytest.MonkeyPatch, same_bits: Callable) -> None:
    t = tuner(epochs=3, keep=0.3, rate=0.2)
    selections, steps = spied(t), []
    apply = SparseSGD.step

    def checked(optimizer: SparseSGD) -> None:
        before = values(t.backbone)
        apply(optimizer)
        for name, p in t.backbone.named_parameters():
            index, ordinal = selections[-1][name], selections[-1].ordinal[name]
            count, threshold = selections[-1].count(name), ops.keep_threshold(0.3)
            kept = reference.keep_mask(t.keep_seed, ordinal, len(steps), count, threshold)
            dropped = torch.ones(p.numel(), dtype=torch.bool)
            dropped[kept.nonzero().flatten() if index is None else index.long()[kept]] = False
            assert same_bits(p.detach().flatten()[dropped], before[name].flatten()[dropped])
        steps.append(any(not torch.equal(before[name], p) for name, p in t.backbone.named_parameters()))

    monkeypatch.setattr(SparseSGD, "step", checked)
    t.tune(images())
    assert steps == [True] * 6


def test_published_dynamics_are_a_dense_loop_over_masked_gradients(same_bits: Callable) -> None:
    t = tuner(epochs=3, dynamics="published", keep=0.3, rate=0.2)
    slow, selections = copy.deepcopy(t), spied(t)
    t.tune(images())
    (selection,) = selections
    named = slow.named_parameters()
    optimizer = torch.optim.SGD(
        [{"params": slow.backbone.parameters()}, {"params": slow.objective.parameters(), "lr": 1e-2}],
        lr=t.options.lr, momentum=0.9, weight_decay=5e-4,
    )  # fmt: skip
    slow.backbone.train()
    step = 0
    for epoch in (1, 2):
        for loss in losses(slow, 0, epoch, images()):
            optimizer.zero_grad()
            loss.backward()
            for ordinal, (name, p) in enumerate(named):
                index, count = selection[name], selection.count(name)
                kept = reference.keep_mask(slow.keep_seed, ordinal, step, count, ops.keep_threshold(0.3))
                mask = torch.zeros(p.numel())
                mask[kept.nonzero().flatten() if index is None else index.long()[kept]] = 1
                p.grad *= mask.view(p.shape)
            optimizer.step()
            step += 1
    assert t.steps == step == 6
    for (name, p), (_, q) in zip(t.named_parameters(), named, strict=True):
        assert same_bits(p, q), name


@pytest.mark.parametrize(("schedule", "drop"), [("constant", "gradients"), ("cosine", "updates")])
def test_updating_in_backward_gives_the_same_bits(schedule: str, drop: str, same_bits: Callable) -> None:
    within, after = (tuner(in_backward=early, keep=0.3, schedule=schedule, drop=drop) for early in (True, False))
    for t in (within, after):
        for task in range(2):
            tuned = t.tune(images(seed=task))
            assert tuned.changed[0] > 0
    for (name, p), (_, q) in zip(within.named_parameters(), after.named_parameters(), strict=True):
        assert same_bits(p, q), name


def test_in_backward_goes_with_exact_dynamics_alone() -> None:
    with pytest.raises(ValueError, match="in_backward is True, but dynamics is 'published': these need"):
        tuner(in_backward=True, dynamics="published")
    tuner(in_backward=None, dynamics="published").tune(images())


@pytest.mark.parametrize("dynamics", ["exact", "published"])
def test_strikes_scale_the_gradient(dynamics: str) -> None:
    options = {"dynamics": dynamics, "momentum": 0.0, "weight_decay": 0.0, "keep": 1.0, "lr": 1.0, "batch_size": COUNT}
    plain, struck = tuner(**options), tuner(**options)
    name = "blocks.0.attn.qkv.weight"
    struck.history.strikes[name] = (torch.arange(96 * 32) % 4).to(torch.uint8)
    before = values(plain.backbone)[name]
    moved = []
    for t in (plain, struck):
        t.tune(images())
        moved.append((dict(t.backbone.named_parameters())[name].detach() - before).double().flatten())
    chosen = moved[0] != 0
    assert chosen.sum() > 100
    expected = moved[0] * 0.9 ** (torch.arange(96 * 32) % 4)
    torch.testing.assert_close(moved[1], expected, rtol=1e-3, atol=1e-8)


def test_every_task_that_selects_an_entry_counts_a_strike_up_to_255() -> None:
    t = tuner(epochs=1)
    selections = spied(t)
    counts = {name: torch.zeros(p.shape, dtype=torch.int64) for name, p in t.named_parameters()}
    for task in range(3):
        t.tune(images(seed=task))
        for name in selections[-1].by_score:
            counts[name].view(-1)[selections[-1][name].long()] += 1
    assert set(t.history.strikes) == set(selections[-1].by_score)
    for name, strikes in t.history.strikes.items():
        assert strikes.dtype == torch.uint8
        assert torch.equal(strikes.long(), counts[name].flatten())
    for strikes in t.history.strikes.values():
        strikes.fill_(255)
    t.tune(images(seed=3))
    assert all((strikes == 255).all() for strikes in t.history.strikes.values())


def test_the_highest_scores_are_frozen_for_all_later_tasks(same_bits: Callable) -> None:
    t = tuner(freeze_rate=0.02, rate=0.1, keep=1.0, lr=0.1)
    selections = spied(t)
    earlier: dict[str, Tensor] = {}
    for task in range(4):
        frozen = {
            name: ops.unpack_bits(bits, t.history.strikes[name].numel()) for name, bits in t.history.frozen.items()
        }
        before = values(t.backbone)
        t.tune(images(seed=task))
        after = values(t.backbone)
        for name, flags in frozen.items():
            assert flags.sum() == task * selected_count(len(flags), 0.02)
            assert (flags >= earlier.get(name, torch.zeros_like(flags))).all()
            assert not flags[selections[-1][name].long()].any()
            assert same_bits(before[name].flatten()[flags], after[name].flatten()[flags])
            assert not torch.equal(before[name], after[name])
        earlier = frozen
    assert set(earlier) == set(selections[-1].by_score)


def test_frozen_entries_come_behind_others_of_score_zero() -> None:
    t = tuner(epochs=1)
    flags = torch.zeros(32 * 3 * 8 * 8, dtype=torch.bool)
    flags[:50] = True
    t.history.frozen["patch_embed.proj.weight"] = ops.pack_bits(flags)
    black = Images(torch.zeros(COUNT, 3, 32, 32, dtype=torch.uint8), torch.arange(COUNT) % 4)
    selections = spied(t)
    t.tune(black)  # no gradient reaches the patch embedding's weight
    assert selections[0]["patch_embed.proj.weight"].tolist() == list(range(50, 50 + selected_count(len(flags), 0.05)))


@pytest.mark.parametrize("dynamics", ["exact", "published"])
def test_a_frozen_entry_is_never_selected_even_where_all_others_are(dynamics: str, same_bits: Callable) -> None:
    t = tuner(rate=1.0, keep=1.0, freeze_rate=0.1, dynamics=dynamics, weight_decay=0.01)
    selections = spied(t)
    t.tune(images())
    flags = {name: ops.unpack_bits(bits, t.history.strikes[name].numel()) for name, bits in t.history.frozen.items()}
    before = values(t.backbone)
    t.tune(images(seed=1))
    after = values(t.backbone)
    for name, frozen in flags.items():
        assert torch.equal(selections[-1][name].long(), (~frozen).nonzero().flatten())
        expected = nn.Parameter(before[name].flatten()[frozen])
        if dynamics == "published":  # torch's SGD decays what has no gradient too
            decay = torch.optim.SGD([expected], t.options.lr, t.options.momentum, weight_decay=0.01)
            for _ in range(-(-COUNT // BATCH)):
                expected.grad = torch.zeros_like(expected)
                decay.step()
        assert same_bits(after[name].flatten()[frozen], expected.detach())


def test_once_every_entry_is_frozen_the_rest_is_tuned() -> None:
    t = tuner(freeze_rate=1.0, rate=1.0)
    t.tune(images())
    before = values(t.backbone)
    tuned = t.tune(images(seed=1))
    moved = {name for name, value in values(t.backbone).items() if not torch.equal(value, before[name])}
    assert moved <= {name for name in before if re.search("bias|norm", name)}
    assert moved
    assert tuned.selected_fraction == 0
    assert all(record.score_selected in (None, 0) for record in tuned.selection if record.name.endswith("qkv.weight"))


def test_without_a_freeze_rate_nothing_is_frozen() -> None:
    t = tuner(epochs=1, freeze_rate=0.0)
    t.tune(images())
    assert t.history.frozen == {}


def test_the_step_counter_and_the_draws_run_on_over_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    began = []

    class Recorded(SparseSGD):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            began.append(options["step"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(sparse_module, "SparseSGD", Recorded)
    t = tuner(epochs=3)
    for task in range(3):
        t.tune(images(seed=task))
    assert began == [0, 6, 12]
    assert t.steps == 18


def test_the_projector_is_kept_over_the_tasks_and_tuned(same_bits: Callable) -> None:
    t = tuner()
    first = values(t.objective)
    t.tune(images())
    between = values(t.objective)
    assert not torch.equal(first["projector.weight"], between["projector.weight"])
    t.options.epochs = 1
    t.tune(images(seed=1))
    assert all(same_bits(between[name], value) for name, value in values(t.objective).items())


def test_bf16_precision_keeps_float32_parameters() -> None:
    t = tuner(precision="bf16")
    before = values(t.backbone)
    t.tune(images())
    assert all(p.dtype == torch.float32 for p in t.backbone.parameters())
    assert any(not torch.equal(before[name], p) for name, p in t.backbone.named_parameters())


@pytest.mark.parametrize("dynamics", ["exact", "published"])
def test_layer_scale_is_selected_by_score_in_published_dynamics_alone(dynamics: str) -> None:
    torch.manual_seed(0)
    scaled = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=40, depth=2, num_heads=2, num_classes=0, init_values=0.1
    )
    t = MIST(scaled, TuningOptions(epochs=2, batch_size=BATCH, freeze_rate=0.05, dynamics=dynamics), 1)
    selections = spied(t)
    t.tune(images())
    by_score = {name for name in selections[0].by_score if scaled.get_parameter(name).ndim == 1}
    gammas = {name for name in values(scaled) if "gamma" in name}
    assert len(gammas) == 4
    assert by_score == (gammas if dynamics == "published" else set())
    assert {name for name in t.history.frozen if "gamma" in name} == by_score
    assert all(selections[0].count(name) == selected_count(40, 0.05) for name in by_score)
