"""Reads a backbone's weights from a local file, without unpickling anything but tensors.

A file may hold the model's own tensors (timm's names), or those of the original release, where timm knows how to
convert them (DINOv2, OpenCLIP, EVA, ...): its ``checkpoint_filter_fn`` of the model is tried then, which also resamples
position embeddings of another image size.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.backbones.archives import DAMAGED, check_pickled, declared_arrays

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")
_HEADS = ("head.", "head_dist.", "fc.", "classifier.")
_SHOWN = 3  # tensors that an error names


def checked_file(weights: str) -> Path:
    """Return the path of a weights file, if it exists and its suffix is one of `SUFFIXES`.

    Parameters
    ----------
    weights : str
        The path as the user gave it.

    Returns
    -------
    Path
        The file, whose content is not looked at.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its suffix is another.
    """
    file = Path(weights)
    if not file.is_file():
        raise FileNotFoundError(
            f"weights {weights!r} is no file; give 'pretrained', 'none' or the path of a .safetensors, "
            ".npz or .pth file"
        )
    if file.suffix not in SUFFIXES:
        expected = ", ".join(SUFFIXES)
        raise ValueError(f"weights file {weights!r} ends in {file.suffix!r}; expected one of {expected}")
    return file


def load(backbone: nn.Module, file: Path, name: str) -> None:
    """Load a file into a backbone; a classifier's weights in it are left out.

    Parameters
    ----------
    backbone : Module
        Its tensors take the file's values, in their own dtype.
    file : Path
        ``.safetensors``, ``.pth``/``.pt``/``.bin`` (tensors only) or ``.npz`` (Google's JAX format).
    name : str
        The backbone's name, for messages.

    Raises
    ------
    ValueError
        If the file cannot be read, holds more than tensors, or its tensors do not fit: the message names them.
    """
    if file.suffix == ".npz":
        _load_jax(backbone, file, name)
        return
    state = tensors(file)
    wrong = _differences(backbone, state)
    if wrong and (converted := _converted(backbone, state)) is not None and not _differences(backbone, converted):
        state, wrong = converted, []
    if wrong:
        raise _misfit(file, name, wrong)
    own = backbone.state_dict()
    _check_numbers(file, own, state)
    backbone.load_state_dict({key: state[key] for key in own})


def _misfit(file: Path, name: str, wrong: list[str]) -> ValueError:
    shown = "; ".join(wrong[:_SHOWN])
    return ValueError(
        f"weights file '{file}' does not fit backbone {name!r}: {len(wrong)} tensors differ ({shown}); "
        "give the model's own name or a file made for it"
    )


def tensors(file: Path) -> dict[str, Any]:
    """Return a file's tensors by name, without what a training checkpoint wraps around them.

    Parameters
    ----------
    file : Path
        ``.safetensors``, or ``.pth``/``.pt``/``.bin`` (tensors only).

    Raises
    ------
    ValueError
        If it cannot be read, or holds more than dense tensors; the message names it.
    """
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    if file.suffix != ".safetensors":
        check_pickled(file)
    try:
        state = load_state_dict(str(file), weights_only=True)
    except AttributeError as error:  # timm was given an object that is no dict
        raise ValueError(f"weights file '{file}' holds no tensors by name; save a state_dict") from error
    except (*DAMAGED, SafetensorError) as error:
        # Keep of torch's message what stands between its advice to read without weights_only and its link.
        reason = " ".join(str(error.__cause__ or error).split())
        reason = reason.partition("trusted source. ")[2].partition(" Check the documentation")[0] or reason
        if not re.search("unsupported (global|class)|trying to (call|instantiate)", reason, re.IGNORECASE):
            raise ValueError(f"weights file '{file}' cannot be read, is it whole? {reason}") from error
        found = _foreign(file)
        raise ValueError(
            f"weights file '{file}' holds more than tensors{found}: it is read with weights_only, since unpickling the "
            "rest could run any code; save its state_dict alone, best as .safetensors, and give that"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"weights file '{file}' holds no tensors by name; save a state_dict")
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and (kind := _unusual(tensor)):
            raise ValueError(f"weights file '{file}' holds {name!r} as {kind}; give dense tensors of floating point")
    return state


def _unusual(tensor: Tensor) -> str | None:
    """Return why a tensor cannot be read as plain numbers, or None if it can."""
    if tensor.is_meta:
        return "a meta tensor, which has no numbers"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"a sparse tensor ({tensor.layout})"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"{tensor.numel():,} entries of {tensor.untyped_storage().nbytes():,} bytes"
    return None


def _check_numbers(file: Path, own: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Raise ValueError unless the tensors are of the backbone's kind of numbers, all finite."""
    for key, tensor in own.items():
        given = state[key]
        if _sort(given) != _sort(tensor):
            raise ValueError(
                f"weights file '{file}' holds {key!r} as {given.dtype}, expected {tensor.dtype} or another "
                f"{_sort(tensor)} type; give the weights as they were before quantisation"
            )
        if given.is_floating_point() and not given.float().isfinite().all():
            raise ValueError(
                f"weights file '{file}' holds numbers in {key!r} that are not finite: the training that wrote it has "
                "diverged, or the file is damaged"
            )


def _sort(tensor: Tensor) -> str:
    return "floating-point" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"


def _foreign(file: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except DAMAGED:  # an older format, which cannot be searched
        return ""
    return f" ({', '.join(sorted(names))})" if names else ""


def _differences(backbone: nn.Module, state: dict[str, Any]) -> list[str]:
    """Return why a state cannot be loaded: one line for each tensor that differs."""
    own = backbone.state_dict()
    heads = _heads(backbone)
    return [
        *(
            f"{key!r} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if isinstance(state.get(key), Tensor) and state[key].shape != tensor.shape
        ),
        *(f"{key!r} is unknown" for key in state if key not in own and not key.startswith(heads)),
        *(f"{key!r} is missing" for key in own if not isinstance(state.get(key), Tensor)),
    ]


def _heads(backbone: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of classifiers' tensor names, since a backbone has no classifier."""
    names = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (*_HEADS, *(f"{name}." for name in ((names,) if isinstance(names, str) else names)))


def _converted(backbone: nn.Module, state: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state under timm's names, or None if timm cannot convert it."""
    convert = getattr(inspect.getmodule(type(backbone)), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        return convert(dict(state), backbone)
    except DAMAGED:
        return None  # no file that timm converts: the differences are reported instead


def _load_jax(backbone: nn.Module, file: Path, name: str) -> None:
    load_pretrained = getattr(backbone, "load_pretrained", None)
    if load_pretrained is None:
        raise ValueError(f"weights file '{file}': backbone {name!r} reads no .npz; give a .safetensors or .pth file")
    if wrong := _jax_differences(backbone, file):
        raise _misfit(file, name, wrong)
    try:
        load_pretrained(str(file))
    except DAMAGED as error:
        raise ValueError(
            f"weights file '{file}' does not fit backbone {name!r}: {error}; give a file of Google's JAX format that "
            "was made for it"
        ) from error
    _check_numbers(file, backbone.state_dict(), backbone.state_dict())


def _jax_differences(backbone: nn.Module, file: Path) -> list[str]:
    """Return missing and surplus blocks and layer norms of another width, which timm's reader does not check."""
    own = backbone.state_dict()
    declared = declared_arrays(file, sum(tensor.numel() for tensor in own.values()))
    scales = {key: array.shape for key, array in declared.items() if key.endswith("LayerNorm_0/scale")}
    norms = {key: tensor.shape for key, tensor in own.items() if re.fullmatch(r"blocks\.\d+\.norm1\.weight", key)}
    stored: dict[str, tuple[str, tuple[int, ...]]] = {}
    for key, shape in scales.items():
        numbered = re.search(r"Transformer/encoderblock_(\d+)/", key)
        if numbered:
            stored[f"blocks.{numbered[1]}.norm1.weight"] = (key, shape)
        elif "Transformer/encoderblock/" in key:  # all blocks in one array
            count = shape[0] if shape else 0
            stored |= {f"blocks.{i}.norm1.weight": (key, shape[1:]) for i in range(min(count, len(norms) + 1))}
    return [
        *(
            f"{stored[ours][0]!r} has shape {stored[ours][1]}, expected {tuple(shape)}"
            for ours, shape in norms.items()
            if ours in stored and tuple(stored[ours][1]) != tuple(shape)
        ),
        *(f"{theirs!r} is unknown" for ours, (theirs, _) in stored.items() if ours not in norms),
        *(f"{ours!r} is missing" for ours in norms if ours not in stored),
    ]
