"""Weight files that are none, of another kind of numbers, or larger than they look: a sentence, and no memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mist_ext import backbones

KEY = "blocks.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return backbones.create("vit_nano").state_dict()


def refused(file: Path, message: str) -> None:
    with pytest.raises(ValueError, match=rf"weights file '{file}' {message}"):
        backbones.create("vit_nano", str(file))


@pytest.mark.parametrize("suffix", [".pth", ".bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "cannot be read: it is text, expected .* pointer"),
        (b"", "cannot be read: it is empty"),
        (b"\x00\x01\x02", "cannot be read: it is of another kind"),
        (b"\x80\x02junk", "cannot be read, is it whole?"),
        (b"PK\x03\x04junk", "cannot be read, is it whole?"),
    ],
)
def test_junk_is_named(content: bytes, message: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"junk{suffix}").write_bytes(content)
    refused(tmp_path / f"junk{suffix}", message)


def test_text_as_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("<!DOCTYPE html><html>not found</html>")
    refused(tmp_path / "x.safetensors", "cannot be read, is it whole?")


@pytest.mark.parametrize("content", [[torch.zeros(3)], torch.zeros(3), 5, {1: torch.zeros(3)}, {"state_dict": [1]}])
def test_what_is_no_dict_of_tensors_is_named(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "holds no tensors by name; save a state_dict")


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "sparse": (lambda t: t.to_sparse(), "as a sparse tensor"),
    "meta": (lambda t: t.to("meta"), "as a meta tensor, which has no numbers"),
    "int8": (lambda t: t.char(), "as torch.int8, expected torch.float32 .* before quantisation"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), r"as a quantised tensor .torch.qint8"),
    "complex": (lambda t: t + 1j, "as torch.complex64"),
    "nan": (lambda t: t.where(t > 0, torch.nan), "in .* that are not finite"),
    "infinite": (lambda t: t * torch.inf, "that are not finite"),
    "expanded": (lambda t: torch.zeros(1).expand(t.shape), "as 65,536 entries of 4 bytes"),
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_another_kind_are_named(case: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    change, message = CHANGES[case]
    torch.save(state | {KEY: change(state[KEY])}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", f"holds .*{message}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_floating_point_types_are_read(dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "x.pth")
    read = backbones.create("vit_nano", str(tmp_path / "x.pth")).state_dict()
    assert torch.equal(read[KEY], state[KEY].to(dtype).float())


def test_a_compressed_pth_is_refused_before_it_is_unpacked(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as whole,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in whole.infolist():
            packed.writestr(member.filename, whole.read(member), zipfile.ZIP_DEFLATED)
    refused(tmp_path / "y.pth", "cannot be read: it unpacks to more than it has bytes")


SCALE = "Transformer/encoderblock_0/LayerNorm_0/scale"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embedding/kernel": np.zeros((2**28,), np.uint8)}, r"unpacks to 0\.27 GB, but the backbone's 1,2.* are read"),
        ({SCALE: np.zeros(128, complex)}, "cannot be read as .npz without unpickling: .*complex128, expected numbers"),
        ({"Transformer/encoderblock/LayerNorm_0/scale": np.zeros((10**12, 0))}, "does not fit backbone 'vit_nano'"),
        ({SCALE: np.array("text")}, "cannot be read as .npz"),
    ],
    ids=["bomb", "complex", "many_blocks", "text"],
)
def test_an_npz_is_judged_by_what_it_declares(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    assert (tmp_path / "x.npz").stat().st_size < 2**20
    refused(tmp_path / "x.npz", message)


def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{SCALE: np.zeros(128, np.float32)})
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content.replace(b"(128,), }     ", b"(99999999,), }"))
    refused(tmp_path / "x.npz", "cannot be read as .npz .*(CRC|too few)")
