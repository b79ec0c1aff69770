"""Weights from local files of every format: what fits is read, what does not is named, and nothing is run."""

import os

import numpy as np
import pytest
import torch
from jax_weights import write_jax
from safetensors.torch import save_file

from mist_ext.backbones import create

SMALL = "test_vit"  # timm's own model for tests: 160 x 160 input, width 64


def same_weights(first, second):
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


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


def test_weights_that_are_no_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights 'missing.pth' is no file; give 'pretrained', 'none' or"):
        create("vit_nano", weights="missing.pth")
    text = tmp_path / "weights.txt"
    text.touch()
    with pytest.raises(ValueError, match=r"ends in '.txt'; expected one of .safetensors"):
        create("vit_nano", weights=str(text))
