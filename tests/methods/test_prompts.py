"""Shapes, counts and gradients of the prompt pools as in their papers; prompts attached from outside are exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from mist_ext import backbones, data
from mist_ext.data.batches import Batches
from mist_ext.data.stream import Stream, views_of
from mist_ext.data.task_images import TaskImages
from mist_ext.data.transforms import AsStored, RandomCrops, Transform
from mist_ext.methods import create
from mist_ext.methods.coda_prompt import orthogonal
from mist_ext.methods.hooks import attached, parallel_to_mlp, prefixes, prompt_tokens
from mist_ext.methods.prompted import BatchesWithQueries

WIDTH = 128


@pytest.fixture
def backbone() -> Any:
    torch.manual_seed(0)  # it is drawn, as are the images of the tests
    return backbones.create("vit_nano").eval()


def trained(name: str, backbone: nn.Module, tasks: int = 2, **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """A method after some tasks of noise, and its parameters before the last one."""
    method: Any = create(name, **{"epochs": 1, "batch_size": 4, **options})
    method.attach(backbone)
    before: dict[str, Tensor] = {}
    for task in range(tasks):
        before = {key: value.clone() for key, value in method.network.state_dict().items()}
        images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(task))
        method.train(TensorDataset(images, torch.arange(8) % 2 + 2 * task), range(2 * task, 2 * task + 2))
    return method, before


def moved(method: Any, before: dict[str, Tensor]) -> set[str]:
    now = method.network.state_dict()
    return {key for key, value in before.items() if not torch.equal(now[key], value)}


def count(method: Any) -> int:
    return sum(parameter.numel() for parameter in method.network.parameters())


HEADS = 2 * (WIDTH + 1)  # of a task with two classes


def test_l2p_has_a_pool_of_prompts_with_keys(backbone: Any) -> None:
    method, before = trained("l2p", backbone, pool=7, length=3, selected=2)
    assert method.network.prompts.shape == (7, 3, WIDTH)
    assert method.network.keys.shape == (7, WIDTH)
    assert count(method) == 7 * 3 * WIDTH + 7 * WIDTH + 2 * HEADS
    assert moved(method, before) == {"prompts", "keys"}  # not the first task's classifier
    hooks, penalty = method._prompts(backbone(torch.rand(1, 3, 32, 32)), training=True)
    with attached(hooks):
        (backbone(torch.rand(1, 3, 32, 32)).sum() + penalty).backward()
    for gradient in (method.network.prompts.grad, method.network.keys.grad):
        assert int(gradient.flatten(1).any(dim=1).sum()) == 2  # those that were selected


def test_l2p_may_read_the_backbone_s_own_feature_beside_the_prompts(backbone: Any) -> None:
    method, before = trained("l2p", backbone, pool=4, length=2, selected=4, head_type="token")
    assert moved(method, before) == {"prompts", "keys"}
    images = torch.rand(3, 3, 32, 32)
    closest = functional.cosine_similarity(backbone(images)[:, None], method.network.keys[None], dim=2).argsort(dim=1)
    for image, order in zip(images, closest.flip(1), strict=True):  # all prompts, the most similar key's first
        x = backbone.pos_drop(backbone._pos_embed(backbone.patch_embed(image[None])))
        x = torch.cat([x, method.network.prompts[order].reshape(1, 8, WIDTH)], dim=1)
        expected = backbone.forward_head(backbone.norm(backbone.blocks(x)[:, :-8]))
        assert torch.allclose(method.features(image[None]), expected, atol=1e-5)
    with pytest.raises(ValueError, match="did you mean 'token'"):
        create("l2p", head_type="tokens")


def test_dualprompt_trains_the_general_prompt_and_the_newest_expert(backbone: Any) -> None:
    method, before = trained("dualprompt", backbone, general_length=3, expert_length=4)
    assert method.network.general.shape == (2, 2, 3, WIDTH)
    assert [expert.shape for expert in method.network.experts] == [(3, 2, 4, WIDTH)] * 2
    assert count(method) == 2 * 2 * 3 * WIDTH + 2 * (3 * 2 * 4 * WIDTH + WIDTH) + 2 * HEADS
    assert moved(method, before) == {"general"}
    assert not torch.equal(method.network.experts[1], method.network.experts[0])


def test_dualprompt_predicts_with_the_expert_of_the_closest_key(backbone: Any) -> None:
    method, _ = trained("dualprompt", backbone)
    images = torch.rand(1, 3, 32, 32) + 0.01 * torch.rand(6, 3, 32, 32)  # so that all are close to the first one
    with torch.no_grad():
        query = functional.normalize(backbone(images))
        method.network.keys[0].copy_(query[0])
        method.network.keys[1].copy_(-query[0])
        plain = method.features(images)
        method.network.experts[1].fill_(1e3)
        assert torch.equal(method.features(images), plain)
        method.network.experts[0].zero_()
        assert not torch.equal(method.features(images), plain)


def test_coda_prompt_trains_the_newest_components(backbone: Any) -> None:
    method, before = trained("coda_prompt", backbone, components=3, length=4, prompted_blocks=(0, 2))
    shapes = [[list(one.shape) for one in part] for part in method._lists()]
    assert shapes == [[[2, 3, 4 * WIDTH]] * 2, [[2, 3, WIDTH]] * 2, [[2, 3, WIDTH]] * 2]
    assert count(method) == 2 * (2 * 3 * (4 + 2) * WIDTH) + 2 * HEADS
    assert moved(method, before) == set()
    fresh: Any = create("coda_prompt", components=3, length=4, prompted_blocks=(0, 2))
    fresh.attach(backbone)
    fresh._extend(range(0, 2))
    rows = fresh.network.keys[0][1]
    assert torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-5)


def test_coda_prompt_weighs_components_by_their_attended_keys(backbone: Any) -> None:
    method, _ = trained("coda_prompt", backbone, tasks=1, components=2, length=4, prompted_blocks=(1,))
    query = torch.randn(1, WIDTH)
    prompts, attention, keys = (part[0][0] for part in method._lists())
    expected = torch.zeros(4 * WIDTH)
    for component in range(2):
        cosine = functional.cosine_similarity(query[0] * attention[component], keys[component], dim=0)
        expected += cosine * prompts[component]
    by_block: dict = {}
    hooks, _ = method._prompts(query, training=False)
    grown = torch.zeros(1, 17 + 2, 3 * WIDTH)
    replaced = hooks[1][2](None, (), grown)
    by_block["keys"], by_block["values"] = replaced[0, 17:, WIDTH : 2 * WIDTH], replaced[0, 17:, 2 * WIDTH :]
    assert torch.allclose(by_block["keys"].flatten(), expected[: 2 * WIDTH], atol=1e-5)
    assert torch.allclose(by_block["values"].flatten(), expected[2 * WIDTH :], atol=1e-5)


@pytest.mark.parametrize("name", ["l2p", "dualprompt", "coda_prompt"])
def test_prototypes_take_the_place_of_the_linear_classifier(name: str, backbone: Any) -> None:
    linear, _ = trained(name, backbone)
    method, _ = trained(name, backbone, classifier="prototypes")
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(24) % 4
    features = method.features(images)
    assert torch.equal(features, linear.features(images))  # training is the same
    for one in (method, linear):
        one.learn(features[:12], labels[:12])
        one.learn(features[12:], labels[12:])
    means = torch.stack([features[labels == label].double().mean(dim=0) for label in range(4)])
    expected = functional.cosine_similarity(features.double()[:, None], means[None], dim=2)
    assert torch.allclose(method.scores(features), expected)
    assert torch.allclose(linear.scores(features), linear.network.heads(features).double())
    with pytest.raises(ValueError, match="did you mean 'prototypes'"):
        create(name, classifier="prototype")


def test_new_components_are_orthogonal_to_earlier_ones_while_there_is_room() -> None:
    earlier = orthogonal(torch.rand(1, 3, 5), [])
    new = orthogonal(torch.rand(1, 4, 5), [earlier])
    products = earlier[0] @ new[0].T
    assert products[:, :2].abs().max() < 1e-5
    assert torch.allclose(new[0].norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("per_image", [False, True])
def test_prefixes_are_extra_keys_and_values_of_the_attention(backbone: Any, per_image: bool) -> None:
    shape = (3, 5, WIDTH) if per_image else (5, WIDTH)
    keys, values = torch.randn(shape), torch.randn(shape)
    attention, x = backbone.blocks[2].attn, torch.randn(3, 17, WIDTH)
    with torch.no_grad(), attached(prefixes(backbone, {2: (keys, values)})):
        got = attention(x)
    with torch.no_grad():
        q, k, v = attention.qkv(x).chunk(3, dim=2)
        k = torch.cat([keys.expand(3, -1, -1), k], dim=1)
        v = torch.cat([values.expand(3, -1, -1), v], dim=1)
        heads = [part.unflatten(2, (4, 32)).transpose(1, 2) for part in (q, k, v)]
        weights = (heads[0] @ heads[1].mT / 32**0.5).softmax(dim=-1)
        expected = attention.proj((weights @ heads[2]).transpose(1, 2).flatten(2))
        assert torch.allclose(got, expected, atol=1e-5)
        assert not torch.allclose(attention(x), expected, atol=1e-2)


def test_tokens_and_adapters_are_attached_where_the_papers_have_them(backbone: Any) -> None:
    block, x, prompts = backbone.blocks[0], torch.randn(2, 17, WIDTH), torch.randn(4, WIDTH)
    with torch.no_grad():
        with attached(prompt_tokens(block, block, prompts)):
            got = block(x)
        assert torch.allclose(got, block(torch.cat([x, prompts.expand(2, -1, -1)], dim=1))[:, :17], atol=1e-6)
        with attached(parallel_to_mlp(block, torch.sin)):
            got = block(x)
        middle = x + block.attn(block.norm1(x))
        assert torch.allclose(got, middle + block.mlp(block.norm2(middle)) + middle.sin(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("l2p", {"length": 4}, "length=4: 20 prompt tokens, but the backbone has 17 positions"),
        ("dualprompt", {"expert_length": 18}, "expert_length=18"),
        ("coda_prompt", {"length": 20}, "length=20"),
        ("aper_vpt_deep", {"length": 18}, "length=18"),
        ("dualprompt", {"expert_blocks": (3, 6)}, "no block 6, expected 0 to 5"),
    ],
)
def test_prompts_beyond_the_backbone_are_refused_when_attached(
    backbone: Any, name: str, options: dict, message: str
) -> None:
    method: Any = create(name, **options)
    with pytest.raises(ValueError, match=message):
        method.attach(backbone)


def images_of(transform: type[Transform]) -> TaskImages:
    source = replace(data.load("digits"), transform=transform)
    return Stream(source, 5, 1993, views_of(source)).tasks[0].train


@pytest.mark.parametrize(("transform", "epochs_queried"), [(AsStored, 1), (RandomCrops, 3)])
def test_an_image_that_stays_the_same_is_queried_once(
    transform: type[Transform], epochs_queried: int, backbone: Any
) -> None:
    images, known, passes = images_of(transform), {}, []

    def query(pixels: Tensor) -> Tensor:
        passes.append(len(pixels))
        with torch.no_grad():
            return backbone(pixels)

    for epoch in range(3):
        for (pixels, queries), labels in BatchesWithQueries(Batches(images, 200, ("order", epoch)), query, known):
            assert len(labels) == len(pixels)
            with torch.no_grad():
                assert torch.allclose(queries, backbone(pixels), atol=1e-5)
    assert sum(passes) == epochs_queried * len(images)


@pytest.mark.parametrize("name", ["dualprompt", "coda_prompt"])
def test_parameters_of_earlier_tasks_get_no_gradient(name: str, backbone: Any) -> None:
    method, _ = trained(name, backbone)
    (*earlier, _), (*others, _) = [
        list(part)
        for part in (
            (method.network.experts, method.network.keys)
            if name == "dualprompt"
            else (method.network.prompts, method.network.attention)
        )
    ]
    hooks, penalty = method._prompts(backbone(torch.rand(2, 3, 32, 32)).detach(), training=True)
    with attached(hooks):
        (backbone(torch.rand(2, 3, 32, 32)).sum() + penalty).backward()
    assert all(parameter.grad is None for parameter in (*earlier, *others))
    assert all(bool(parameter.grad.any()) for parameter in method._trained())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("l2p", {"pool": 100, "selected": 100}, "selected=100: so many prompts, but the backbone has 17 positions"),
        ("coda_prompt", {"prompted_blocks": ()}, r"prompted_blocks=\(\): expected one or more different blocks"),
        ("dualprompt", {"expert_blocks": (2, 2)}, r"expert_blocks=\(2, 2\): expected one or more different"),
    ],
)
def test_prompts_that_reach_nothing_are_refused_when_attached(
    name: str, options: dict[str, Any], message: str, backbone: Any
) -> None:
    method: Any = create(name, **options)
    with pytest.raises(ValueError, match=message):
        method.attach(backbone)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("l2p", {"head_type": "token"}),
        ("dualprompt", {"classifier": "prototypes"}),
        ("coda_prompt", {"prompted_blocks": (1, 2, 3, 4, 5)}),
    ],
)
def test_a_state_made_with_other_options_is_refused(name: str, options: dict[str, Any], backbone: Any) -> None:
    method, _ = trained(name, backbone, tasks=1)
    other: Any = create(name, **options)
    other.attach(backbone)
    with pytest.raises(ValueError, match="but the method was created with"):
        other.load_state_dict(method.state_dict())
