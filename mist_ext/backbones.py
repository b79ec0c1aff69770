"""Backbones by name: the embedded ``vit_nano`` and every model of timm, as feature extractors.

``vit_nano`` is a timm ``VisionTransformer`` of 1.2 million parameters, pre-trained on rendered Latin letters
only (``mist_ext/assets/pretrain_vit_nano.py``); its weights come with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mist_ext.suggest import unknown

NANO = "vit_nano"
NANO_WEIGHTS = Path(__file__).parent / "assets" / "vit_nano.safetensors"
_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin")
_HEADS = ("head.", "head_dist.", "fc.", "classifier.")


@dataclass(frozen=True)
class InputSpec:
    """What a backbone was pre-trained on.

    Attributes
    ----------
    size : int
        Height and width of the images, in pixels.
    mean, std : tuple of float
        Per-channel normalisation of images in [0, 1]; 0 and 1 where there was none.
    """

    size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def input_spec(backbone: nn.Module) -> InputSpec:
    """Input size and normalisation of a backbone made by `create`."""
    settings = getattr(backbone, "pretrained_cfg", None)
    if settings is None:
        raise ValueError(
            f"{type(backbone).__name__} has no pretrained_cfg, so its input size and normalisation are not "
            "known; expected a model made by mist_ext.backbones.create or by timm"
        )
    return InputSpec(settings["input_size"][-1], tuple(settings["mean"]), tuple(settings["std"]))


def create(name: str, weights: str = "pretrained") -> nn.Module:
    """Make a backbone that maps images to features.

    Parameters
    ----------
    name : str
        ``"vit_nano"`` or the name of a timm model.
    weights : str
        ``"pretrained"`` (shipped for ``vit_nano``; otherwise timm's, which are downloaded unless cached),
        ``"none"`` for random weights, or the path of a local ``.safetensors``, ``.npz`` (Google's JAX
        format) or ``.pth``/``.pt``/``.bin`` file. A classifier's weights in a file are left out.

    Returns
    -------
    Module
        Takes float ``[batch, 3, height, width]`` and gives ``[batch, num_features]``; ``num_features`` is an
        attribute.

    Raises
    ------
    ValueError
        If the model is unknown, or the file's tensors do not fit it.
    FileNotFoundError
        If ``weights`` is neither a known word nor a file.
    """
    file = None if weights in ("pretrained", "none") else _checked_file(weights)
    pretrained = weights == "pretrained"
    if name == NANO:
        backbone = _vit_nano()
        file = NANO_WEIGHTS if pretrained else file
    else:
        backbone = _timm_model(name, pretrained)
    if file is not None:
        _load(backbone, file, name)
    return backbone


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The transformer's blocks, first to last; ValueError for a model that has none."""
    found = getattr(backbone, "blocks", None)
    if not isinstance(found, nn.Sequential | nn.ModuleList):
        raise ValueError(f"{type(backbone).__name__} has no list of blocks, as timm's vision transformers have")
    return list(found)


def compile_blocks(backbone: nn.Module) -> None:
    """`torch.compile` for each block in place: a whole compiled graph would hold all gradients at once."""
    for block in blocks(backbone):
        block.compile()


def set_checkpointing(backbone: nn.Module) -> None:
    """Compute each block's activations anew in backward; ValueError for a model that cannot."""
    switch = getattr(backbone, "set_grad_checkpointing", None)
    if switch is None:
        raise ValueError(f"{type(backbone).__name__} has no set_grad_checkpointing; leave checkpointing out")
    switch(True)


def _vit_nano() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    backbone = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=6, num_heads=4, num_classes=0, weight_init="jax"
    )
    settings: Any = {"input_size": (3, 32, 32), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    backbone.pretrained_cfg = settings
    return backbone


def _timm_model(name: str, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, [NANO, *timm.list_models()])
    known = timm.list_pretrained(name.partition(".")[0] + "*")
    if "." in name and name not in known:
        raise unknown("backbone", name, known)
    if pretrained and name not in {*known, *(tagged.partition(".")[0] for tagged in known)}:
        raise ValueError(f"backbone {name!r} has no pre-trained weights in timm; give weights='none' or a file's path")
    return timm.create_model(name, pretrained=pretrained, num_classes=0)


def _checked_file(weights: str) -> Path:
    file = Path(weights)
    if not file.is_file():
        raise FileNotFoundError(
            f"weights {weights!r} is no file; give 'pretrained', 'none' or the path of a .safetensors, "
            ".npz or .pth file"
        )
    if file.suffix not in _SUFFIXES:
        expected = ", ".join(_SUFFIXES)
        raise ValueError(f"weights file {weights!r} ends in {file.suffix!r}; expected one of {expected}")
    return file


def _load(backbone: nn.Module, file: Path, name: str) -> None:
    """Load ``file`` without unpickling anything but tensors."""
    if file.suffix == ".npz":
        load_pretrained = getattr(backbone, "load_pretrained", None)
        if load_pretrained is None:
            raise ValueError(
                f"weights file '{file}': backbone {name!r} reads no .npz; give a .safetensors or .pth file"
            )
        load_pretrained(str(file))
        return

    from timm.models import load_state_dict

    state = load_state_dict(str(file), weights_only=True)
    own = backbone.state_dict()
    stored = {key: value for key, value in state.items() if key in own or not key.startswith(_HEADS)}
    wrong = [
        *(
            f"{key!r} has shape {tuple(stored[key].shape)}, expected {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if key in stored and stored[key].shape != tensor.shape
        ),
        *(f"{key!r} is unknown" for key in stored if key not in own),
        *(f"{key!r} is missing" for key in own if key not in stored),
    ]
    if wrong:
        shown = "; ".join(wrong[:3])
        raise ValueError(
            f"weights file '{file}' does not fit backbone {name!r}: {len(wrong)} tensors differ ({shown}); "
            "give the model's own name or a file made for it"
        )
    backbone.load_state_dict(stored)
