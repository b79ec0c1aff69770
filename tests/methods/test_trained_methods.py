"""Every method that trains on images: it learns, repeats, is stored, and only borrows the backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fewer_images import every_nth
from slow import first_is_quick, slow
from torch import Tensor, nn

from mist_ext import backbones
from mist_ext.config import Config
from mist_ext.data.batches import Batches
from mist_ext.data.stream import Stream
from mist_ext.data.task_images import TaskImages
from mist_ext.methods import METHODS, create, named
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.methods.trained import TrainedMethod
from mist_ext.runs import benchmark, checkpoint

TRAINED = [name for name in METHODS if issubclass(named(name), TrainedMethod)]
PROMPTED = ["l2p", "dualprompt", "coda_prompt"]
QUICK = ["aper_adapter", "slca"]
# Published rates suit a ViT-B/16 and thousands of images; here are 80 images a task.
LEARNING: dict[str, dict[str, Any]] = {
    "coda_prompt": {"epochs": 12, "batch_size": 16, "lr": 0.01},
    "dualprompt": {"epochs": 8, "batch_size": 16, "lr": 0.005},
    "finetune": {"epochs": 8, "batch_size": 16, "lr": 0.003},
    "joint": {"batch_size": 16, "lr": 0.01},
    "l2p": {"epochs": 8, "lr": 0.005},
    "slca": {"epochs": 8, "batch_size": 16, "draws_per_class": 64},
}


@pytest.fixture(scope="module")
def stream() -> Stream:
    """A part of the digits in tasks of three classes, of which the tests use two."""
    return Stream(every_nth(5), 3, 1993)


@pytest.fixture
def backbone() -> nn.Module:
    return backbones.create("vit_nano")


def small(name: str, backbone: nn.Module, **options: Any) -> TrainedMethod:
    settings = {"epochs": 1, "batch_size": 32, **options}
    method = create(name, **settings)
    assert isinstance(method, TrainedMethod)
    method.attach(backbone)
    return method


def extracted(extract: Callable[[Tensor], Tensor], images: TaskImages) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return torch.cat([extract(pixels) for pixels, _ in Batches(images, 64, None)]), images.labels


def learn_task(method: TrainedMethod, stream: Stream, number: int) -> None:
    task = stream.tasks[number]
    seen = [each.train for each in stream.tasks[: number + 1]]
    method.train(TaskImages.joined(seen) if method.rehearses else task.train, task.classes)
    method.learn(*extracted(method.features, task.train))


def accuracy(method: Any, extract: Callable[[Tensor], Tensor], stream: Stream, tasks: int) -> float:
    parts = [extracted(extract, task.test) for task in stream.tasks[:tasks]]
    hits = torch.cat([method.predict(features) == labels for features, labels in parts])
    return 100 * float(hits.double().mean())


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    assert first.keys() == second.keys()
    return all(
        torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name]
        for name, value in first.items()
    )


@pytest.mark.parametrize("name", TRAINED)
class TestEveryTrainedMethod:
    def test_the_backbone_is_as_it_was(self, name: str, stream: Stream, backbone: nn.Module) -> None:
        backbone.train()
        backbone.blocks[1].mlp.eval()  # type: ignore[index, union-attr]
        backbone.pos_embed.requires_grad_(False)  # type: ignore[union-attr, operator]
        images = torch.rand(3, 3, 32, 32)
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        flags = [module.training for module in backbone.modules()]
        gradients = [parameter.requires_grad for parameter in backbone.parameters()]
        output = backbone(images)
        random = torch.get_rng_state()
        method = small(name, backbone)
        learn_task(method, stream, 0)
        assert same(dict(backbone.state_dict()), before)
        assert torch.equal(backbone(images), output)
        assert [module.training for module in backbone.modules()] == flags
        assert [parameter.requires_grad for parameter in backbone.parameters()] == gradients
        assert all(parameter.grad is None for parameter in backbone.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())
        assert torch.equal(torch.get_rng_state(), random)

    @pytest.mark.slow
    def test_a_stored_state_goes_on_with_the_same_bits(
        self, name: str, stream: Stream, backbone: nn.Module, tmp_path: Path
    ) -> None:
        method, other = small(name, backbone), small(name, backbone)
        learn_task(method, stream, 0)
        checkpoint.save(tmp_path, method.state_dict())
        learn_task(method, stream, 1)
        stored = checkpoint.load_latest(tmp_path, pytest.fail)
        assert stored is not None
        other.load_state_dict(stored)
        assert not same({"s": method.state_dict()["sessions"]}, {"s": stored["sessions"]})
        learn_task(other, stream, 1)
        assert same(method.state_dict(), other.state_dict())
        predicting = small(name, backbone)
        predicting.load_inference_state(method.inference_state())
        test = stream.tasks[0].test
        assert torch.equal(
            predicting.scores(extracted(predicting.features, test)[0]),
            method.scores(extracted(method.features, test)[0]),
        )

    def test_a_state_of_another_method_is_refused(self, name: str, backbone: nn.Module) -> None:
        with pytest.raises(ValueError, match="sessions"):
            small(name, backbone).load_state_dict(SimpleCIL().state_dict())

    def test_tasks_must_follow_one_another(self, name: str, stream: Stream, backbone: nn.Module) -> None:
        with pytest.raises(ValueError, match="from 0 on"):
            small(name, backbone).train(stream.tasks[1].train, stream.tasks[1].classes)

    def test_without_a_backbone_it_says_so(self, name: str) -> None:
        with pytest.raises(RuntimeError, match="attach"):
            create(name).features(torch.zeros(1, 3, 32, 32))  # type: ignore[attr-defined]

    def test_a_resnet_is_refused_where_a_vit_is_needed(self, name: str) -> None:
        resnet = backbones.create("resnet18", "none")
        if not named(name).needs_vit:  # type: ignore[attr-defined]
            small(name, resnet)
            return
        with pytest.raises(ValueError, match="ResNet"):
            small(name, resnet)


@pytest.mark.parametrize("name", TRAINED)
def test_checkpointing_works_or_is_refused_before_any_training(name: str, stream: Stream, backbone: nn.Module) -> None:
    backbones.set_checkpointing(backbone)
    if named(name).needs_vit:  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="leave checkpointing out"):
            small(name, backbone)
    else:
        learn_task(small(name, backbone), stream, 0)


def test_a_run_refuses_checkpointing_with_such_a_method(tmp_path: Path) -> None:
    options = Config(data="digits", tuner=["none"], method=["ease"], checkpointing=True, out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="method 'Ease' attaches to the blocks while they run"):
        benchmark.run(options)
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in TRAINED])
def test_it_learns(name: str, stream: Stream, backbone: nn.Module) -> None:
    method = small(name, backbone, **{"epochs": 4, **LEARNING.get(name, {})})
    simple = SimpleCIL()
    backbone.eval()
    for number in range(2):
        learn_task(method, stream, number)
        simple.learn(*extracted(backbone, stream.tasks[number].train))
    reached = accuracy(method, method.features, stream, 2)
    assert reached > 60  # chance is 17
    if name not in (*PROMPTED, "finetune"):
        assert reached > accuracy(simple, backbone, stream, 2) - 3


@pytest.mark.parametrize("name", ["finetune", "slca"])
def test_a_tuned_copy_follows_a_backbone_that_moves(name: str, stream: Stream, backbone: nn.Module) -> None:
    method = small(name, backbone, lr=1e-3)
    learn_task(method, stream, 0)
    before, learned = ([p.detach().clone() for p in of.parameters()] for of in (backbone, method.network.copy))
    for number, parameter in enumerate(backbone.parameters()):
        parameter.data += 0.01 * number
    method.recipe = dataclasses.replace(method.recipe, lr=1e-30)  # which changes nothing
    learn_task(method, stream, 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))
    following = zip(before, backbone.parameters(), learned, method.network.copy.parameters(), strict=True)
    assert all(torch.allclose(b, a + (now - then), atol=1e-6) for then, now, a, b in following)


@pytest.mark.slow
def test_joint_training_keeps_what_fine_tuning_forgets(stream: Stream, backbone: nn.Module) -> None:
    kept = {}
    for name in ("finetune", "joint"):
        method = small(name, backbone, epochs=8, batch_size=16, lr=0.01)
        for number in range(2):
            learn_task(method, stream, number)
        kept[name] = accuracy(method, method.features, stream, 1)
    assert kept["finetune"] < 70 < 90 < kept["joint"]


@pytest.mark.slow
def test_a_bf16_backbone_is_borrowed_too(stream: Stream, backbone: nn.Module) -> None:
    backbone.to(torch.bfloat16)
    for name in ("aper_adapter", "aper_ssf", "coda_prompt"):
        method = small(name, backbone)
        learn_task(method, stream, 0)
        assert extracted(method.features, stream.tasks[0].test)[0].dtype == torch.float32


@pytest.mark.parametrize("name", first_is_quick(name for name in TRAINED if name.startswith("aper_")))
def test_aper_is_the_nearest_mean_of_both_features(name: str, stream: Stream, backbone: nn.Module) -> None:
    method = small(name, backbone)
    learn_task(method, stream, 0)
    trained = {key: value.clone() for key, value in method.network.state_dict().items()}
    learn_task(method, stream, 1)
    assert same(dict(method.network.state_dict()), trained)  # the first task alone adapts
    backbone.eval()
    train = [extracted(method.features, task.train) for task in stream.tasks[:2]]
    f, y = (np.concatenate([part[i].numpy() for part in train]) for i in range(2))
    plain = extracted(backbone, stream.tasks[1].train)[0].numpy()
    assert np.array_equal(f[-len(plain) :, :128], plain)
    assert not np.allclose(f[-len(plain) :, 128:], plain)
    means = np.stack([f[y == label].astype(np.float64).mean(axis=0) for label in range(6)])
    queries = extracted(method.features, stream.tasks[0].test)[0].numpy().astype(np.float64)
    expected = queries @ means.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    assert np.abs(method.scores(torch.from_numpy(queries)).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("name", first_is_quick(name for name in TRAINED if name.startswith("ranpac_")))
def test_ranpac_after_its_first_phase_is_a_ridge_regression_on_adapted_features(
    name: str, stream: Stream, backbone: nn.Module
) -> None:
    method: Any = small(name, backbone, lr=0.1, width=150)
    learn_task(method, stream, 0)
    trained = {key: value.clone() for key, value in method.network.state_dict().items()}
    learn_task(method, stream, 1)
    assert same(dict(method.network.state_dict()), trained)  # the first task alone adapts
    backbone.eval()
    train = [extracted(method.features, task.train) for task in stream.tasks[:2]]
    f, y = (np.concatenate([part[i].numpy() for part in train]) for i in range(2))
    assert f.shape[1] == 128
    assert not np.allclose(f[-40:], extracted(backbone, stream.tasks[1].train)[0].numpy()[-40:])
    projection = method.projection.numpy().astype(np.float64)
    hidden = np.maximum(f.astype(np.float64) @ projection, 0)
    weights = np.linalg.solve(hidden.T @ hidden + method.ridge * np.eye(150), hidden.T @ np.eye(6)[y])
    queries = extracted(method.features, stream.tasks[0].test)[0]
    expected = np.maximum(queries.numpy().astype(np.float64) @ projection, 0) @ weights
    assert np.abs(method.scores(queries).numpy() - expected).max() < 1e-6


def test_the_projection_follows_the_seed_that_the_adapters_have(backbone: nn.Module) -> None:
    features, labels = torch.randn(20, 128), torch.arange(20) % 2
    plain = create("ranpac", width=30, seed=7)
    plain.learn(features, labels)
    adapted = small("ranpac_ssf", backbone, width=30, seed=7)
    adapted.learn(features, labels)
    assert torch.equal(adapted.scores(features), plain.scores(features))


@pytest.mark.parametrize("name", ["ranpac_vpt_deep", "aper_vpt_shallow"])
def test_more_prompts_than_tokens_are_refused_before_any_training(name: str, backbone: nn.Module) -> None:
    with pytest.raises(ValueError, match="length=900: 900 prompt tokens"):
        small(name, backbone, length=900)


def test_ease_synthesises_old_prototypes_in_the_new_subspace(stream: Stream, backbone: nn.Module) -> None:
    method: Any = small("ease", backbone, lr=0.5)
    for number in range(2):
        learn_task(method, stream, number)
    both = [extracted(method.features, task.train) for task in stream.tasks[:2]]
    f, y = (np.concatenate([part[i].numpy().astype(np.float64) for part in both]) for i in range(2))
    means = np.stack([f[y == label].mean(axis=0) for label in range(6)]).reshape(6, 2, 128)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    alike = np.exp(unit(means[:3, 0]) @ unit(means[3:, 0]).T)
    table = means.copy()
    table[:3, 1] = alike / alike.sum(axis=1, keepdims=True) @ means[3:, 1]
    assert np.abs(method.table.numpy() - table).max() < 1e-5
    assert np.abs(table[:3, 1] - means[:3, 1]).max() > 1e-3
    queries = f[:10].reshape(10, 2, 128)
    weight = np.where(np.arange(6)[:, None] // 3 == np.arange(2), 1.0, 0.1)
    expected = np.einsum("nsd,csd,cs->nc", unit(queries), unit(table), weight)
    assert np.abs(method.scores(torch.from_numpy(f[:10])).numpy() - expected).max() < 1e-5
