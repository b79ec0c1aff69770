"""What MIST is compared with: other selections, biases alone, cross-entropy."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from mist_ext.data.batches import Batches
from mist_ext.data.image_sets import Images
from mist_ext.indices import selected_count
from mist_ext.kernels import ops, reference
from mist_ext.optim import LargestGradientSGD, SparseSGD
from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.tuners import create
from mist_ext.tuners.objective import CrossEntropy, mutual_information_loss
from mist_ext.tuners.tuner import Tuned, Tuner, TuningOptions
from mist_ext.tuners.views import TwoViews

COUNT, BATCH = 20, 8  # three batches, the last one short


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images(seed: int = 0, first: int = 0) -> Images:
    drawing = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (COUNT, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, first + torch.arange(COUNT) % 4)


def tuner(name: str, **options: Any) -> Any:
    return create(
        name, backbone(), TuningOptions(**{"epochs": 2, "batch_size": BATCH, "in_backward": False, **options}), 1
    )


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def views(t: Tuner, task: int, epoch: int, data: Images) -> Any:
    """The two-view batches of an epoch and their labels."""
    for step, (pixels, labels) in enumerate(Batches(data, BATCH, (t.seed, "order", task, epoch))):
        yield TwoViews()(pixels, draw_seed(t.seed, "views", task, epoch, step)), labels


def selections(t: Any) -> list[Selection]:
    """The selections that a tuner makes, as it makes them."""
    made: list[Selection] = []
    select = t.select

    def recording(*arguments: Any) -> Selection:
        result = select(*arguments)
        made.append(result)
        return result

    t.select = recording
    return made


def test_random_selects_as_many_entries_elsewhere_and_freezes_none() -> None:
    scored, drawn = tuner("mist", epochs=1), tuner("random", epochs=1)
    made = [selections(scored), selections(drawn)]
    for t in (scored, drawn):
        for task in range(2):
            t.tune(images(task))
    (by_score, _), (by_chance, again) = made
    assert list(by_score) == list(by_chance)
    for name in by_score:
        assert by_score.count(name) == by_chance.count(name)
    for name in by_score.by_score:
        assert not torch.equal(by_score[name], by_chance[name])
        assert not torch.equal(by_chance[name], again[name])  # every task draws anew
    assert drawn.history.frozen == {}
    assert isinstance(drawn.tune(images()), Tuned)


def test_magnitude_selects_the_largest_weights_of_each_task_s_backbone() -> None:
    t = tuner("magnitude", rate=0.1)
    made = selections(t)
    for task in range(2):
        before = values(t.backbone)
        tuned = t.tune(images(task))
        for name, value in before.items():
            if value.ndim <= 1 or "norm" in name:
                assert made[task][name] is None
            else:
                k = selected_count(value.numel(), 0.1)
                largest = value.abs().flatten().sort(descending=True, stable=True).indices[:k]
                assert sorted(largest.tolist()) == made[task][name].tolist()
        assert tuned.selected_fraction == pytest.approx(0.1, abs=0.001)
        assert tuned.costs.seconds["score"] == 0
    assert t.history.strikes
    assert t.history.frozen == {}


def test_gradient_is_a_dense_loop_over_each_step_s_largest_gradients() -> None:
    options = {"epochs": 3, "rate": 0.2, "keep": 0.3}
    ours, slow = tuner("gradient", **options), tuner("gradient", **options)
    ours.tune(images())
    named_parameters = slow.named_parameters()
    momenta = {name: torch.zeros_like(p) for name, p in named_parameters}
    slow.backbone.train()
    step = 0
    for epoch in (1, 2):
        for both, labels in views(slow, 0, epoch, images()):
            loss = slow.objective(slow.backbone(both), labels)
            gradients = torch.autograd.grad(loss, [p for _, p in named_parameters])
            for ordinal, ((name, p), g) in enumerate(zip(named_parameters, gradients, strict=True)):
                if name.startswith("projector"):
                    threshold = ops.keep_threshold(0.3)
                    moved = reference.keep_mask(slow.keep_seed, ordinal, step, p.numel(), threshold).nonzero()[:, 0]
                    lr = slow.options.projector_lr
                else:
                    rate = 0.3 if p.ndim <= 1 or "norm" in name else 0.2 * 0.3
                    k = selected_count(p.numel(), rate)
                    moved, lr = g.abs().flatten().sort(descending=True, stable=True).indices[:k], slow.options.lr
                value, momentum = p.data.view(-1), momenta[name].view(-1)
                momentum[moved] = 0.9 * momentum[moved] + g.flatten()[moved] + 5e-4 * value[moved]
                value[moved] -= lr * momentum[moved]
            step += 1
    assert ours.steps == step == 6
    for (name, p), (_, q) in zip(ours.named_parameters(), named_parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7, msg=name)  # a step moves an entry by some 1e-5


def test_gradient_changes_as_much_in_a_step_as_mist_keeps() -> None:
    ours, mist = tuner("gradient", epochs=4).tune(images()), tuner("mist", epochs=4).tune(images())
    assert sum(ours.changed) / 3 == pytest.approx(sum(mist.kept) / 3, rel=0.1)
    assert all(0 < changed <= kept for changed, kept in zip(ours.changed, ours.kept, strict=True))
    assert ours.changed_all[0] == pytest.approx(mist.changed_all[0], rel=0.2)
    assert ours.selected_fraction == ours.kept[0]
    assert tuner("gradient").history.strikes == {}


def test_gradient_has_exact_dynamics_only() -> None:
    with pytest.raises(ValueError, match="'gradient' has exact dynamics only, but dynamics is 'published'"):
        tuner("gradient", dynamics="published")


def test_gradient_steps_by_the_sparse_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    kernel = ops.drop_apply_sgd_

    def counted(param: Any, grad: Any, index: Any, **others: Any) -> None:
        counts.append([i is not None for i in index])
        kernel(param, grad, index, **others)

    monkeypatch.setattr(ops, "drop_apply_sgd_", counted)
    t = tuner("gradient", in_backward=False)
    t.tune(images())
    assert isinstance(t._optimizers, dict)
    assert issubclass(LargestGradientSGD, SparseSGD)
    assert [all(flags) for flags in counts] == [True, True, False] * 3  # matrices, whole tensors, projector


def test_bitfit_moves_every_bias_and_nothing_else() -> None:
    t = tuner("bitfit")
    before = values(t.backbone)
    tuned = t.tune(images())
    entries = sum(p.numel() for p in t.backbone.parameters())
    biases = sum(value.numel() for name, value in before.items() if name.endswith(".bias"))
    for name, p in t.backbone.named_parameters():
        assert torch.equal(before[name], p) == (not name.endswith(".bias")), name
        assert p.requires_grad
    assert tuned.selected_fraction == biases / entries
    assert all(0 < changed <= biases / entries for changed in tuned.changed)


def test_bitfit_is_torch_s_sgd_on_the_biases() -> None:
    ours, slow = tuner("bitfit"), tuner("bitfit")
    ours.tune(images())
    trained = [p for name, p in slow.backbone.named_parameters() if name.endswith("bias")]
    optimizer = torch.optim.SGD(
        [{"params": trained}, {"params": slow.objective.parameters(), "lr": 1e-2}],
        lr=slow.options.bitfit_lr, momentum=0.9, weight_decay=5e-4,
    )  # fmt: skip
    slow.backbone.train()
    for epoch in (0, 1):
        for both, labels in views(slow, 0, epoch, images()):
            optimizer.zero_grad()
            slow.objective(slow.backbone(both), labels).backward()
            optimizer.step()
    for (name, p), (_, q) in zip(ours.backbone.named_parameters(), slow.backbone.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8, msg=name)


def test_bitfit_without_a_bias_is_refused() -> None:
    plain = nn.Linear(3, 3, bias=False)
    with pytest.raises(ValueError, match="Linear has no parameter named bias"):
        create("bitfit", plain, TuningOptions(), 1)


def test_cross_entropy_is_torch_s_over_the_task_s_classes() -> None:
    torch.manual_seed(1)
    objective = CrossEntropy(5, torch.tensor([3, 4, 9]))
    features, labels = torch.randn(8, 5), torch.tensor([9, 3, 3, 4])
    logits = features @ objective.classifier.weight.T + objective.classifier.bias
    expected = functional.cross_entropy(logits, torch.tensor([2, 0, 0, 1, 2, 0, 0, 1]))
    torch.testing.assert_close(objective(features, labels), expected)


@pytest.mark.parametrize(("scored", "tuned_by"), [*itertools.product(("mi", "ce"), repeat=2)])
def test_scores_and_tuning_follow_their_own_objectives(scored: str, tuned_by: str) -> None:
    options = {"score_objective": scored, "tune_objective": tuned_by, "rate": 0.1}
    t, slow = tuner("mist", **options), tuner("mist", **options)
    slow.begin_task(images(first=8))
    slow.backbone.train()
    total = {name: torch.zeros_like(p) for name, p in slow.backbone.named_parameters()}
    for both, labels in views(slow, 0, 0, images(first=8)):
        features = slow.backbone(both)
        if scored == "mi":
            loss = mutual_information_loss(functional.normalize(slow.objective.projector(features)), labels)
        else:
            logits = slow.classifier.classifier(features)
            loss = functional.cross_entropy(logits, (labels - 8).repeat(2))
        for name, g in zip(total, torch.autograd.grad(loss, list(slow.backbone.parameters())), strict=True):
            total[name] += g**2
    made = selections(t)
    projector = values(t.objective)
    tuned: Tuned = t.tune(images(first=8))
    for name in (n for n in made[0].by_score if n in total):
        k = selected_count(total[name].numel(), 0.1)
        highest = total[name].flatten().topk(k).indices.tolist()
        assert len(set(highest) & set(made[0][name].tolist())) >= 0.99 * k, name
    assert all(torch.equal(projector[name], p) for name, p in t.objective.named_parameters()) == (tuned_by == "ce")
    assert tuned.selected_fraction == pytest.approx(0.1, abs=0.001)
    assert min(tuned.changed) > 0


def test_the_four_combinations_tune_differently() -> None:
    ends = []
    for scored, tuned_by in itertools.product(("mi", "ce"), repeat=2):
        t = tuner("mist", score_objective=scored, tune_objective=tuned_by)
        t.tune(images())
        ends.append(torch.cat([p.detach().flatten() for p in t.backbone.parameters()]))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(ends, 2))


def test_each_task_has_a_new_classifier_that_is_tuned_at_its_own_rate() -> None:
    t = tuner("full", tune_objective="ce", classifier_lr=0.3)
    first = t.begin_task(images()) and t.classifier
    (group,) = [group for group in t.head_groups() if group["params"][0][0] == "classifier.weight"]
    assert group["lr"] == 0.3
    start = first.classifier.weight.detach().clone()
    t.tune(images())
    assert not torch.equal(start, first.classifier.weight)
    assert t.classifier is None
    t.begin_task(images(1, first=4))
    assert t.classifier.classes.tolist() == [4, 5, 6, 7]
    assert not torch.equal(start, t.classifier.classifier.weight)


@pytest.mark.parametrize("option", ["score_objective", "tune_objective"])
def test_an_unknown_objective_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"unknown {option} 'xe'; did you mean 'ce'"):
        tuner("mist", **{option: "xe"})
