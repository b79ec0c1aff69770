"""The input that a backbone was pre-trained on: image size, normalisation and resizing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mist_ext.backbones.structure import name_of


@dataclass(frozen=True)
class InputSpec:
    """What a backbone was pre-trained on: timm's data configuration of the model.

    Attributes
    ----------
    size : int
        Height and width of the images, in pixels.
    mean, std : tuple of float
        Per-channel normalisation of images in [0, 1]; 0 and 1 where there was none.
    interpolation : str
        How images were resized: ``"bilinear"``, ``"bicubic"``, ...
    crop_pct : float
        The share of the resized image's side that the centre crop of the evaluation keeps.
    """

    size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0


def input_spec(backbone: nn.Module) -> InputSpec:
    """Return input size, normalisation and resizing of a backbone made by `create`.

    Raises
    ------
    ValueError
        If the backbone tells nothing of it, or takes images that are not square.
    """
    if getattr(backbone, "pretrained_cfg", None) is None:
        raise ValueError(
            f"{type(backbone).__name__} has no pretrained_cfg, so its input size and normalisation are not "
            "known; expected a model made by mist_ext.backbones.create or by timm"
        )
    from timm.data import resolve_data_config

    settings = resolve_data_config(model=backbone)
    _, height, width = settings["input_size"]
    if height != width:
        raise ValueError(
            f"{name_of(backbone)} takes images of {height} x {width} pixels, expected square ones; make it by "
            "mist_ext.backbones.create, which asks timm for a square variant"
        )
    return InputSpec(
        height, tuple(settings["mean"]), tuple(settings["std"]), settings["interpolation"], settings["crop_pct"]
    )
