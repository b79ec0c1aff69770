"""A loss or a gradient that is NaN or infinite ends tuning at its batch, which is named with what to lower."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mist_ext.data.image_sets import Images
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners import create
from mist_ext.tuners.divergence import Diverged, EpochMonitor, largest_norm, require_finite
from mist_ext.tuners.objective import MutualInformation
from mist_ext.tuners.tuner import TuningOptions

NEEDS_PEFT = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
LORA = pytest.param("lora", "lora_lr", marks=NEEDS_PEFT)
RATES = [
    *((name, "lr") for name in ("mist", "random", "magnitude", "gradient")),
    ("full", "full_lr"),
    ("bitfit", "bitfit_lr"),
    LORA,
]
WHERE = "training diverged in task 1, {}, epoch {}, batch {} of 2: "


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)


def images(count: int = 12) -> Images:
    drawing = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=drawing, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def tuner(name: str, **options: Any) -> Any:
    return create(name, backbone(), TuningOptions(**{"epochs": 3, "batch_size": 8, "in_backward": False, **options}), 1)


def losses_become(monkeypatch: pytest.MonkeyPatch, value: float, at: int) -> None:
    """The n-th loss, from 1, has another value, and the same gradient."""
    original, calls = MutualInformation.forward, [0]

    def forward(self: MutualInformation, *arguments: Any) -> Tensor:
        calls[0] += 1
        loss = original(self, *arguments)
        return loss + value if calls[0] == at else loss

    monkeypatch.setattr(MutualInformation, "forward", forward)


@pytest.mark.parametrize(("name", "option"), RATES)
@pytest.mark.parametrize("rate", [1e10, 1e30])
def test_a_rate_that_is_far_too_high_is_named(name: str, option: str, rate: float) -> None:
    with pytest.raises(
        Diverged, match=rf"task 1, tune, epoch \d, batch \d of 2: .*lower --{option.replace('_', '-')} "
    ):
        tuner(name, epochs=40, **{option: rate}).tune(images())


@pytest.mark.parametrize(
    ("at", "where", "advice"),
    [
        (1, ("score", 1, 1), "look at the weights"),
        (2, ("score", 1, 2), "look at"),
        (6, ("tune", 2, 2), r"lower --lr \(0"),
    ],
)
@pytest.mark.parametrize(("value", "sign"), [(math.nan, "the loss is NaN"), (math.inf, "the loss is infinite")])
def test_the_batch_is_named_and_nothing_of_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, at: int, where: tuple, advice: str, value: float, sign: str
) -> None:
    mist = tuner("mist")
    seen: list[list[Tensor]] = []
    losses_become(monkeypatch, value, at)
    mist.callbacks = Callbacks(
        checkpoint_if_due=lambda: seen.append([p.detach().clone() for p in mist.backbone.parameters()])
    )
    with pytest.raises(Diverged, match=WHERE.format(*where) + sign + ".*" + advice):
        mist.tune(images())
    assert len(seen) == at - 1
    if seen:
        assert all(map(torch.equal, seen[-1], mist.backbone.parameters()))


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize(("at", "where"), [(2, ("score", 1, 2)), (3, ("tune", 1, 1))])
def test_an_infinite_gradient_under_a_finite_loss_is_found(in_backward: bool, at: int, where: tuple) -> None:
    mist = tuner("mist", in_backward=in_backward)
    calls = [0]

    def blown_up(gradient: Tensor) -> Tensor:
        calls[0] += 1
        return gradient * math.inf if calls[0] == at else gradient

    mist.backbone.blocks[0].mlp.fc1.weight.register_hook(blown_up)
    with pytest.raises(Diverged, match=WHERE.format(*where) + "its gradient has made weights or scores"):
        mist.tune(images())


def test_a_gradient_that_cannot_be_ranked_is_told_in_a_sentence() -> None:
    gradient = tuner("gradient")
    gradient.backbone.blocks[0].mlp.fc1.weight.register_hook(lambda g: g * math.nan)
    with pytest.raises(Diverged, match="tune, epoch 1, batch 1 of 2: a gradient is NaN or infinite; look at"):
        gradient.tune(images())


@NEEDS_PEFT
def test_merged_weights_must_be_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    lora = tuner("lora", epochs=1)

    def spoil() -> None:
        if lora.position[1] == 2:
            lora.trained()[0][1].data.fill_(math.inf)

    lora.callbacks = Callbacks(checkpoint_if_due=spoil)
    with pytest.raises(Diverged, match="the merged weights are NaN or infinite; lower --lora-lr"):
        lora.tune(images())


@pytest.mark.parametrize("name", ["mist", "full"])
def test_the_mean_loss_of_every_epoch_is_kept_also_through_an_interruption(name: str) -> None:
    losses: list[float] = []
    whole = tuner(name)
    whole.callbacks = Callbacks(log=lambda name, value, step: losses.append(float(value)))
    expected = whole.tune(images()).losses
    means = [sum(losses[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert [*expected.get("score", []), *expected["tune"]] == pytest.approx(means)
    assert {phase: len(each) for phase, each in expected.items()} == (
        {"score": 1, "tune": 2} if name == "mist" else {"tune": 3}
    )

    class Stop(Exception):
        pass

    for last in range(6):
        states: list[dict] = []
        first = tuner(name)

        def save(first: Any = first, states: list = states, last: int = last) -> None:
            states.append(
                first.state_dict() | {"weights": {n: p.clone() for n, p in first.backbone.state_dict().items()}}
            )
            if len(states) > last:
                raise Stop

        first.callbacks = Callbacks(checkpoint_if_due=save)
        with pytest.raises(Stop):
            first.tune(images())
        again = tuner(name)
        again.backbone.load_state_dict(states[-1]["weights"])
        again.load_state_dict(states[-1])
        assert again.tune(images()).losses == expected


def monitor(batches: int, **options: Any) -> EpochMonitor:
    made = EpochMonitor(batches, torch.device("cpu"), lambda batch, sign: Diverged(f"{batch}: {sign}"), **options)
    made._rarely = True  # as on a GPU
    return made


@pytest.mark.parametrize("row", ["loss", "step"])
def test_a_gpu_is_asked_rarely_and_tells_the_first_batch_all_the_same(row: str) -> None:
    values = monitor(200)
    bad = torch.tensor(math.nan)
    for batch in range(52):
        values.begin(batch, bad if row == "loss" and batch in (40, 45) else torch.tensor(1.0))
        values.end(batch, [bad[None] if row == "step" and batch in (40, 45) else torch.ones(3)])
        if batch + 1 == 50:
            with pytest.raises(Diverged, match=r"^40: "):
                values.passed(batch + 1)
            break
        values.passed(batch + 1)
    with pytest.raises(Diverged, match=r"^40: "):  # what a state to be saved asks for
        values.look()


def test_a_gpu_is_asked_at_the_end_of_an_epoch() -> None:
    values = monitor(3)
    for batch in range(3):
        values.begin(batch, torch.tensor(math.inf if batch == 1 else 1.0))
        values.end(batch, [torch.ones(1)])
        if batch < 2:
            values.passed(batch + 1)
    with pytest.raises(Diverged, match=r"^1: the loss is infinite"):
        values.passed(3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_entry_of_many_is_found(value: float, dtype: torch.dtype) -> None:
    tensors = [torch.ones(300, dtype=dtype), torch.zeros(0, dtype=dtype), torch.ones(70, 70, dtype=dtype)]
    assert float(largest_norm(tensors)) == 70
    tensors[2][33, 3] = value
    assert not largest_norm(tensors).isfinite()


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = backbone()
    require_finite(model, "mine.pth")
    model.blocks[1].norm1.bias.data[3] = -math.inf  # type: ignore[index]
    with pytest.raises(ValueError, match=r"blocks\.1\.norm1\.bias of the backbone .*'mine\.pth'"):
        require_finite(model, "mine.pth")


@pytest.mark.parametrize("name", ["mist", "gradient", "full"])
@pytest.mark.parametrize(
    "made",
    [
        lambda: Images(torch.full((6, 3, 32, 32), 9, dtype=torch.uint8), torch.arange(6) % 2),
        lambda: Images(images(9).pixels, torch.arange(9)),
    ],
    ids=["constant_images", "one_image_a_class"],
)
def test_degenerate_images_have_finite_losses(name: str, made: Callable[[], Images]) -> None:
    found = tuner(name).tune(made()).losses["tune"]
    assert all(math.isfinite(loss) for loss in found)


def one_image() -> Images:
    return Images(images(1).pixels, torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("name", ["gradient", "full"])
def test_a_single_image_has_finite_losses(name: str) -> None:
    assert all(math.isfinite(loss) for loss in tuner(name).tune(one_image()).losses["tune"])


def test_a_single_image_gives_nothing_to_select_by() -> None:
    with pytest.raises(ValueError, match=r"every score is 0: .*give the task more images"):
        tuner("mist").tune(one_image())
