"""Backbones: the embedded one is what it claims to be, others come from timm, errors say what to do."""

import re
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open

from mist_ext.backbones import EMBEDDED, InputSpec, create, input_spec
from mist_ext.backbones.models import _probed
from mist_ext.data import load
from mist_ext.data.image_sets import Images

SMALL = "test_vit"  # timm's own model for tests: 160 x 160 input, width 64


def images(size):
    drawing = torch.Generator().manual_seed(1)
    return Images(torch.randint(0, 256, (6, 3, size, size), generator=drawing, dtype=torch.uint8), torch.arange(6) % 3)


def same_weights(first, second):
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_backbone_gives_features_of_its_size(name):
    backbone = create(name)
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, backbone.num_features) == (2, 128)
    assert 1.1e6 < sum(p.numel() for p in backbone.parameters()) < 1.3e6
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert input_spec(backbone) == InputSpec(size=32, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize(
    ("name", "data", "accuracy"), [("vit_nano", "letters", 90), ("vit_nano.scripts", "1894 classes", 85)]
)
def test_the_shipped_weights_are_small_half_precision_and_accurate(name, data, accuracy):
    assert EMBEDDED[name].weights.stat().st_size < 3e6
    with safe_open(EMBEDDED[name].weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
        assert float(file.metadata()["held_out_accuracy"]) >= accuracy
        assert data in file.metadata()["data"]


def test_the_embedded_backbones_have_weights_of_their_own():
    assert not same_weights(create("vit_nano"), create("vit_nano.scripts"))


@torch.inference_mode()
@pytest.mark.slow
def test_frozen_class_means_leave_room_on_glyphs_yet_carry_over():
    backbone, source = create("vit_nano").eval(), load("glyphs")
    few = [part.subset(torch.arange(0, len(part), 4)) for part in (source.train, source.test)]  # of each class
    train, test = (F.normalize(backbone(part.pixels / 255), dim=1) for part in few)
    means = torch.stack([train[few[0].labels == label].mean(dim=0) for label in range(100)])
    predicted = (test @ F.normalize(means, dim=1).T).argmax(dim=1)
    accuracy = 100 * (predicted == few[1].labels).float().mean()
    assert 30 < accuracy < 85


def test_random_weights_differ_from_the_shipped_ones():
    assert not same_weights(create("vit_nano", weights="none"), create("vit_nano"))


def test_a_timm_model_comes_without_its_classifier():
    backbone = create(SMALL, weights="none")
    assert backbone(torch.rand(1, 3, 160, 160)).shape == (1, backbone.num_features)
    assert input_spec(backbone).size == 160


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


@pytest.mark.parametrize("name", ["deepseek_vit_412m_enc", "gemma4_vit_167m_enc", "qwen3_vit_88m_enc"])
def test_a_model_without_a_feature_vector_is_refused(name):
    with pytest.raises(ValueError, match=rf"'{name}' gives \(2, \d+, \d+\) for two images, expected one feature vec"):
        create(name, weights="none")


def test_a_model_for_oblong_images_is_made_square():
    width, options = _probed("vit_base_patch16_sapiens2")
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
