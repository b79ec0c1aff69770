"""Backbones: the embedded one is what it claims to be, others come from timm, errors say what to do."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from jax_weights import write_jax
from safetensors import safe_open
from safetensors.torch import save_file

from mist_ext import backbones, tuners
from mist_ext.backbones import NANO_WEIGHTS, InputSpec, check_options, create, input_spec, train_mode
from mist_ext.data import load
from mist_ext.data.source import Images
from mist_ext.tuners.tuner import TuningOptions

SMALL = "test_vit"  # timm's own model for tests: 160 x 160 input, width 64
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
    backbones._probed.cache_clear()

    def make(name):
        size, options = FAMILIES[name]
        if "img_size" in options:
            options = options | {"pretrained_cfg_overlay": {"input_size": (3, size, size)}}
        monkeypatch.setattr(timm, "create_model", lambda *args, **more: made(*args, **options, **more))
        torch.manual_seed(0)
        return create(name, "none"), size

    yield make
    backbones._probed.cache_clear()


def images(size):
    drawing = torch.Generator().manual_seed(1)
    return Images(torch.randint(0, 256, (6, 3, size, size), generator=drawing, dtype=torch.uint8), torch.arange(6) % 3)


def same_weights(first, second):
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def test_the_embedded_backbone_gives_features_of_its_size():
    backbone = create("vit_nano")
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, backbone.num_features) == (2, 128)
    assert 1.1e6 < sum(p.numel() for p in backbone.parameters()) < 1.3e6
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert input_spec(backbone) == InputSpec(size=32, mean=(0, 0, 0), std=(1, 1, 1))


def test_the_shipped_weights_are_small_half_precision_and_accurate():
    assert NANO_WEIGHTS.stat().st_size < 3e6
    with safe_open(NANO_WEIGHTS, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
        assert float(file.metadata()["held_out_accuracy"]) >= 90


@torch.inference_mode()
def test_frozen_class_means_leave_room_on_glyphs_yet_carry_over():
    backbone, source = create("vit_nano").eval(), load("glyphs")
    train, test = (F.normalize(backbone(part.pixels / 255), dim=1) for part in (source.train, source.test))
    means = torch.stack([train[source.train.labels == label].mean(dim=0) for label in range(100)])
    predicted = (test @ F.normalize(means, dim=1).T).argmax(dim=1)
    accuracy = 100 * (predicted == source.test.labels).float().mean()
    assert 30 < accuracy < 85


def test_random_weights_differ_from_the_shipped_ones():
    assert not same_weights(create("vit_nano", weights="none"), create("vit_nano"))


def test_a_timm_model_comes_without_its_classifier():
    backbone = create(SMALL, weights="none")
    assert backbone(torch.rand(1, 3, 160, 160)).shape == (1, backbone.num_features)
    assert input_spec(backbone).size == 160


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
@pytest.mark.parametrize("name", ["vit_nano", SMALL])
def test_weights_are_read_from_a_local_file(tmp_path, name, suffix):
    original = create(name, weights="none")
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(original.state_dict() | {"head.weight": torch.zeros(5, 1)}, file)
    elif suffix == ".pth":
        torch.save({"state_dict": original.state_dict() | {"head.weight": torch.zeros(5, 1)}}, file)
    else:
        write_jax(original, file)
    assert same_weights(create(name, weights=str(file)), original)


def test_a_file_of_another_model_is_refused_by_name(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"blocks.0.norm1.weight": torch.zeros(7), "surplus": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"does not fit backbone 'vit_nano'.*'blocks.0.norm1.weight' has shape \(7,\)"):
        create("vit_nano", weights=str(file))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_needs_unpickling_is_refused_and_runs_nothing(tmp_path, zipped):
    file, sprung = tmp_path / "unsafe.pth", tmp_path / "sprung"
    torch.save({"weight": Trap(str(sprung))}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"unsafe.pth' holds more than tensors.*weights_only.*save its state_dict alone"
    ):
        create("vit_nano", weights=str(file))
    assert not sprung.exists()


def test_an_npz_of_objects_is_refused_and_runs_nothing(tmp_path):
    file, sprung = tmp_path / "unsafe.npz", tmp_path / "sprung"
    trap = np.array([Trap(str(sprung))], dtype=object)
    np.savez(file, **{"Transformer/encoderblock_0/LayerNorm_0/scale": trap})
    with pytest.raises(ValueError, match=r"unsafe.npz' cannot be read as .npz without unpickling"):
        create("vit_nano", weights=str(file))
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_a_file_that_is_cut_short_is_named(tmp_path, suffix):
    whole, file = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    original = create(SMALL, weights="none")
    if suffix == ".npz":
        write_jax(original, whole)
    elif suffix == ".pth":
        torch.save(original.state_dict(), whole)
    else:
        save_file(original.state_dict(), whole)
    file.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\{suffix}' cannot be read"):
        create(SMALL, weights=str(file))


def test_a_jax_file_of_another_model_names_tensors(tmp_path):
    file = tmp_path / "other.npz"
    write_jax(create("vit_nano", weights="none"), file)
    scale = r"'Transformer/encoderblock_0/LayerNorm_0/scale' has shape \(128,\), expected \(64,\)"
    with pytest.raises(ValueError, match=f"does not fit backbone 'test_vit'.*{scale}"):
        create(SMALL, weights=str(file))


def test_a_jax_file_of_a_deeper_model_is_refused(tmp_path):
    file = tmp_path / "deeper.npz"
    write_jax(create(SMALL, weights="none"), file)
    with np.load(file) as arrays:
        more = dict(arrays)
    more["Transformer/encoderblock_6/LayerNorm_0/scale"] = more["Transformer/encoderblock_5/LayerNorm_0/scale"]
    np.savez(file, **more)
    with pytest.raises(ValueError, match=r"'Transformer/encoderblock_6/LayerNorm_0/scale' is unknown"):
        create(SMALL, weights=str(file))


def test_a_model_without_a_jax_reader_refuses_npz(tmp_path):
    np.savez(tmp_path / "any.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"'mobilevit_xxs' reads no .npz; give a .safetensors or .pth file"):
        create("mobilevit_xxs", weights=str(tmp_path / "any.npz"))


def test_names_and_image_size_of_an_original_release_are_converted(tmp_path):
    """OpenCLIP keeps timm's vision tower below 'visual.trunk'; a head and other towers are left out."""
    original = create(SMALL, weights="none")
    state = {f"visual.trunk.{name}": tensor for name, tensor in original.state_dict().items()}
    torch.save(state | {"logit_scale": torch.ones(())}, tmp_path / "clip.pth")
    assert same_weights(create(SMALL, weights=str(tmp_path / "clip.pth")), original)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("vit_nao", "vit_nano"),
        ("vit_base_patch16_242", "vit_base_patch16_224"),
        ("vit_base_patch16_224.augreg_in22k", "vit_base_patch16_224.augreg_in21k"),
    ],
)
def test_a_misspelt_backbone_is_met_with_the_nearest_names(name, nearest):
    with pytest.raises(ValueError, match=f"unknown backbone '{re.escape(name)}'; did you mean.*'{re.escape(nearest)}'"):
        create(name, weights="none")


def test_weights_that_are_no_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights 'missing.pth' is no file; give 'pretrained', 'none' or"):
        create("vit_nano", weights="missing.pth")
    text = tmp_path / "weights.txt"
    text.touch()
    with pytest.raises(ValueError, match=r"ends in '.txt'; expected one of .safetensors"):
        create("vit_nano", weights=str(text))


def test_weights_that_cannot_be_downloaded_are_asked_for_as_a_file(monkeypatch):
    made = timm.create_model

    def offline(name, pretrained, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return made(name, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        FileNotFoundError, match=r"'vit_tiny_patch16_224' are not .* no route to host; fetch .* its path"
    ):
        create("vit_tiny_patch16_224")


def test_importing_the_module_does_not_import_timm():
    script = "import sys, mist_ext.backbones; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_every_vit_module_of_timm_has_a_family_here():
    tested = {name for name in FAMILIES if timm.is_model(name)}
    assert tested == FAMILIES.keys()
    for module in timm.list_modules():
        names = set(timm.list_models("*vit*", module=module))
        assert not names or names & tested, f"timm's {module} has {sorted(names)[:3]}, of which none is tested"


@pytest.mark.parametrize("name", FAMILIES)
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


@pytest.mark.parametrize("name", ["deepseek_vit_412m_enc", "gemma4_vit_167m_enc", "qwen3_vit_88m_enc"])
def test_a_model_without_a_feature_vector_is_refused(name):
    with pytest.raises(ValueError, match=rf"'{name}' gives \(2, \d+, \d+\) for two images, expected one feature vec"):
        create(name, weights="none")


def test_a_model_for_oblong_images_is_made_square():
    width, options = backbones._probed("vit_base_patch16_sapiens2")
    assert width == 768
    with torch.device("meta"):
        backbone = timm.create_model("vit_base_patch16_sapiens2", num_classes=0, **options)
        assert backbone(torch.empty(1, 3, 768, 768)).shape == (1, 768)
        oblong = timm.create_model("vit_base_patch16_sapiens2", num_classes=0)
    assert input_spec(backbone).size == 768
    with pytest.raises(ValueError, match=r"'vit_base_patch16_sapiens2' .* takes images of 1024 x 768 pixels"):
        input_spec(oblong)


def test_the_input_is_that_of_timms_own_data_configuration():
    with torch.device("meta"):
        backbone = timm.create_model("vit_base_patch16_clip_224.openai", num_classes=0)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert input_spec(backbone) == InputSpec(224, mean, std, "bicubic", 0.9)


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
