"""Backbones: the embedded one is what it claims to be, others come from timm, errors say what to do."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from mist_ext.backbones import NANO_WEIGHTS, InputSpec, create, input_spec
from mist_ext.data import load

SMALL = "test_vit"  # timm's own model for tests: 160 x 160 input, width 64


def same_weights(first, second):
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def write_jax(backbone, path):
    """The backbone's weights in the layout of Google's ViT archives."""
    own = {name: tensor.numpy() for name, tensor in backbone.state_dict().items()}
    out = {
        "embedding/kernel": own["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": own["patch_embed.proj.bias"],
        "cls": own["cls_token"],
        "Transformer/posembed_input/pos_embedding": own["pos_embed"],
        "Transformer/encoder_norm/scale": own["norm.weight"],
        "Transformer/encoder_norm/bias": own["norm.bias"],
    }
    for i, block in enumerate(backbone.blocks):
        at, heads = f"Transformer/encoderblock_{i}/", block.attn.num_heads
        attention = at + "MultiHeadDotProductAttention_1/"
        width = own[f"blocks.{i}.norm1.weight"].shape[0]
        weights = own[f"blocks.{i}.attn.qkv.weight"].reshape(3, heads, width // heads, width)
        biases = own[f"blocks.{i}.attn.qkv.bias"].reshape(3, heads, width // heads)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}{part}/kernel"] = weight.transpose(2, 0, 1)
            out[f"{attention}{part}/bias"] = bias
        projection = own[f"blocks.{i}.attn.proj.weight"].T
        out[attention + "out/kernel"] = projection.reshape(heads, width // heads, width)
        out[attention + "out/bias"] = own[f"blocks.{i}.attn.proj.bias"]
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            out[f"{at}{theirs}/scale"] = own[f"blocks.{i}.{ours}.weight"]
            out[f"{at}{theirs}/bias"] = own[f"blocks.{i}.{ours}.bias"]
        for number in (0, 1):
            out[f"{at}MlpBlock_3/Dense_{number}/kernel"] = own[f"blocks.{i}.mlp.fc{number + 1}.weight"].T
            out[f"{at}MlpBlock_3/Dense_{number}/bias"] = own[f"blocks.{i}.mlp.fc{number + 1}.bias"]
    np.savez(path, **out)


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


def test_a_file_that_needs_unpickling_is_refused(tmp_path):
    file = tmp_path / "unsafe.pth"
    torch.save({"weight": re.compile("x")}, file)
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match=r"(?i)weights.only"):
        create("vit_nano", weights=str(file))


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


def test_importing_the_module_does_not_import_timm():
    script = "import sys, mist_ext.backbones; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
