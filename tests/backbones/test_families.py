"""Every family of vision transformers in timm can be tuned, compiled block by block and checkpointed."""

import pytest
import timm
import torch
from slow import first_is_quick

from mist_ext import backbones, tuners
from mist_ext.backbones import check_options, create, train_mode
from mist_ext.backbones.models import _probed
from mist_ext.data.image_sets import Images
from mist_ext.tuners.tuner import TuningOptions

THIN = {"depth": 2, "embed_dim": 64, "num_heads": 2}

# One name of each of timm's modules and kinds of output, with the image size of the test, and the options that make it
# small. Where "img_size" is among them the model is made for that size, else it takes any.
FAMILIES = {
    "convit_tiny": (32, {"img_size": 32, "depth": 2, "local_up_to_layer": 1}),
    "crossvit_tiny_240": (48, {"img_size": 48, "img_scale": (1.0, 1.0), "patch_size": (12, 16), "depth": ((1, 1, 0),)}),
    "davit_tiny": (64, {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4)}),
    "deepseek_vit_412m": (56, THIN),
    "efficientvit_b0": (64, {}),  # its head widens the features
    "efficientvit_l1": (64, {"widths": (8, 16, 32, 32, 32), "head_widths": (64, 64)}),
    "efficientvit_m0": (64, {}),
    "vit_tiny_patch16_dinov3_qkvb": (64, {"img_size": 64, "depth": 2}),  # DINOv3: rotary positions, registers, average
    "vit_pe_core_tiny_patch16_384": (64, {"img_size": 64, "depth": 2}),  # attention pooling
    "vit_small_patch16_lingbot": (64, {"img_size": 64, "depth": 2}),  # Eva with a class token
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 2}),
    "fastvit_t8": (64, {}),
    "gcvit_xxtiny": (64, {"img_size": 64}),
    "gemma4_vit_167m": (64, THIN),
    "levit_256d": (64, {"img_size": 64, "embed_dim": (32, 48, 64), "num_heads": (2, 3, 4), "depth": (1, 1, 1)}),
    "levit_128s": (64, {"img_size": 64}),  # distilled: two heads
    "test_maxvit": (64, {"img_size": 64}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "mvitv2_tiny": (64, {"img_size": 64}),
    "mvitv2_small_cls": (64, {"img_size": 64}),
    "naflexvit_base_patch16_parfac_gap": (64, THIN),
    "naflexvit_base_patch16_siglip": (64, THIN),
    "naflexvit_base_patch16_radio_v3": (64, THIN),
    "nextvit_small": (64, {"depths": (2, 2, 5, 2)}),  # drops paths by default
    "qwen3_vit_88m": (64, THIN),
    "repvit_m1": (64, {}),
    "shvit_s1": (64, {}),
    "tiny_vit_5m_224": (64, {}),
    "test_vit": (64, {"img_size": 64}),  # class token
    "test_vit2": (64, {"img_size": 64}),  # average
    "test_vit3": (64, {"img_size": 64}),  # attention pooling
    "vit_small_patch14_reg4_dinov2": (56, {"img_size": 56, "depth": 2}),
    "vit_base_patch16_siglip_224": (64, {"img_size": 64, **THIN}),
    "vit_tiny_r_s16_p8_224": (64, {"img_size": 64, "depth": 2}),  # a hybrid
    "vit_small_r26_s32_224": (64, {"img_size": 64, "depth": 2}),
    "test_vit_relpos": (64, {"img_size": 64}),  # has dropout
    "vit_relpos_medium_patch16_cls_224": (64, {"img_size": 64, **THIN}),
    "samvit_base_patch16_224": (64, {"img_size": 64, **THIN, "global_attn_indexes": (1,)}),
    "vitamin_small_224": (64, {"img_size": 64}),
}


@pytest.fixture
def small(monkeypatch):
    """Lets `create` make the model of a family in its small size, with random weights; each test makes one."""
    made = timm.create_model
    _probed.cache_clear()

    def make(name):
        size, options = FAMILIES[name]
        if "img_size" in options:
            options = options | {"pretrained_cfg_overlay": {"input_size": (3, size, size)}}
        monkeypatch.setattr(timm, "create_model", lambda *args, **more: made(*args, **options, **more))
        torch.manual_seed(0)
        return create(name, "none"), size

    yield make
    _probed.cache_clear()


def images(size):
    drawing = torch.Generator().manual_seed(1)
    return Images(torch.randint(0, 256, (4, 3, size, size), generator=drawing, dtype=torch.uint8), torch.arange(4) % 2)


def test_every_vit_module_of_timm_has_a_family_here():
    tested = {name for name in FAMILIES if timm.is_model(name)}
    assert tested == FAMILIES.keys()
    for module in timm.list_modules():
        names = set(timm.list_models("*vit*", module=module))
        assert not names or names & tested, f"timm's {module} has {sorted(names)[:3]}, of which none is tested"


@pytest.mark.parametrize("name", first_is_quick(FAMILIES))
def test_each_family_is_tuned_for_a_task(name, small, same_bits):
    backbone, size = small(name)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    parameters = dict(backbone.named_parameters())
    tuned = tuners.create("mist", backbone, TuningOptions(epochs=2, batch_size=4), 1).tune(images(size))
    after = backbone.state_dict()
    assert all(same_bits(after[key], before[key]) for key in after if key not in parameters)  # running statistics
    moved = sum(int((after[key] != before[key]).sum()) for key in parameters)
    assert 0 < moved < 0.02 * sum(p.numel() for p in parameters.values())
    assert 0 < max(tuned.changed) <= max(tuned.kept) < 0.01
    features = backbone.eval()(torch.rand(2, 3, size, size))
    assert features.shape == (2, backbone.num_features)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("name", ["levit_128s", "mobilevit_xxs", "test_maxvit"])
def test_training_uses_the_running_statistics_of_the_pre_training(name, small, same_bits):
    backbone, size = small(name)
    with torch.no_grad():
        for key, statistic in backbone.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                statistic.add_(torch.rand(statistic.shape))
        pixels = torch.rand(3, 3, size, size)
        expected = backbone.eval()(pixels)
        train_mode(backbone)
        assert backbone.training
        assert same_bits(backbone(pixels), expected)
        assert not torch.allclose(backbone.train()(pixels), expected)  # the batch's own statistics would show


def test_dropout_follows_the_seed_alone(small, same_bits):
    def tuned(name, seed):
        backbone, size = small(name)
        torch.manual_seed(seed)
        tuners.create("mist", backbone, TuningOptions(epochs=2, batch_size=4), 1).tune(images(size))
        return torch.rand(1), list(backbone.parameters())

    (drawn, first), (_, second) = tuned("test_vit_relpos", 5), tuned("test_vit_relpos", 6)
    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("name", "count"),
    [("test_vit", 6), ("levit_128s", 9), ("davit_tiny", 4), ("mobilevit_xxs", 10), ("gemma4_vit_167m", 2)],
)
def test_blocks_are_found_in_stages_and_towers_too(name, count, small):
    found = backbones.blocks(small(name)[0])
    assert len(found) == len(set(found)) == count
    assert not any(part in found for block in found for part in block.modules() if part is not block)


def test_options_that_do_not_fit_a_backbone_are_refused_by_name(small):
    backbone, _ = small("convit_tiny")
    check_options(backbone, compile=True, checkpointing=False)
    with pytest.raises(ValueError, match=r"backbone 'convit_tiny' \(ConVit\) does not support checkpointing"):
        check_options(backbone, compile=True, checkpointing=True)
    with pytest.raises(ValueError, match=r"compile works block by block, but Linear has no list of blocks"):
        check_options(torch.nn.Linear(1, 1), compile=True, checkpointing=False)
    nano = create("vit_nano")
    check_options(nano, compile=True, checkpointing=True)
    assert not nano.grad_checkpointing
