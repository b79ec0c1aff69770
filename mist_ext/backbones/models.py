"""Makes backbones by name, as feature extractors: the embedded ones and the models of timm.

``vit_nano``, 1.2 million parameters, was pre-trained on rendered Latin letters only (``tools/pretrain_on_letters.py``),
``vit_nano.scripts``, the same network, on 1,894 letters of many scripts (``tools/pretrain_on_scripts.py``).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.backbones import weights as weight_files
from mist_ext.backbones.embedded import EMBEDDED
from mist_ext.system.suggest import unknown


def create(name: str, weights: str = "pretrained") -> nn.Module:
    """Make a backbone that maps images to features.

    Parameters
    ----------
    name : str
        ``"vit_nano"``, ``"vit_nano.scripts"`` or the name of a timm model.
    weights : str
        ``"pretrained"`` (shipped for the first two; otherwise timm's, which are downloaded unless cached),
        ``"none"`` for random weights, or the path of a local ``.safetensors``, ``.npz`` (Google's JAX
        format) or ``.pth``/``.pt``/``.bin`` file. A classifier's weights in a file are left out.

    Returns
    -------
    Module
        Takes float ``[batch, 3, height, width]`` and gives ``[batch, num_features]``, in training mode
        too; ``num_features`` is an attribute. Its input is square: where timm's is not, of the shorter side.

    Raises
    ------
    ValueError
        If the model is unknown or gives no feature vector, or the file's tensors do not fit it.
    FileNotFoundError
        If ``weights`` is neither a known word nor a file, or cannot be downloaded.
    """
    file = None if weights in ("pretrained", "none") else weight_files.checked_file(weights)
    pretrained = weights == "pretrained"
    if name in EMBEDDED:
        backbone = EMBEDDED[name].create()
        file = EMBEDDED[name].weights if pretrained else file
    else:
        backbone = _timm_model(name, pretrained)
    if file is not None:
        weight_files.load(backbone, file, name)
    return backbone


def _timm_model(name: str, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise unknown("backbone", name, [*EMBEDDED, *timm.list_models()])
    with_weights = timm.list_pretrained(name.partition(".")[0] + "*")
    if "." in name and name not in with_weights:
        raise unknown("backbone", name, with_weights)
    if pretrained and name not in {*with_weights, *(tagged.partition(".")[0] for tagged in with_weights)}:
        raise ValueError(f"backbone {name!r} has no pre-trained weights in timm; give weights='none' or a file's path")
    num_features, options = _probed(name)
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except OSError as error:  # raised by the hub's client, also without a network
        raise FileNotFoundError(
            f"the weights of backbone {name!r} are not cached and could not be downloaded: {error}; fetch timm's file "
            "for it elsewhere and give its path as weights, or weights='none' for random ones"
        ) from error
    features: Any = num_features
    backbone.num_features = features  # some models count the features before their head's own layers
    return backbone


@functools.lru_cache(maxsize=32)
def _probed(name: str) -> tuple[int, dict[str, Any]]:
    """Return the width of a timm model's features, and the options that make its input square.

    The model is made and run on the meta device, which computes shapes alone and takes no memory.
    """
    import timm
    from timm.data import resolve_data_config

    options: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("meta"):
        backbone = timm.create_model(name, pretrained=False, num_classes=0)
        _, height, width = resolve_data_config(model=backbone)["input_size"]
        side = min(height, width)
        if height != width:
            options = {"img_size": (side, side), "pretrained_cfg_overlay": {"input_size": (3, side, side)}}
            backbone = timm.create_model(name, pretrained=False, num_classes=0, **options)
        shapes = {_output(backbone.train(mode), torch.empty(2, 3, side, side)) for mode in (True, False)}
    shape = shapes.pop() if len(shapes) == 1 else " or ".join(sorted(map(str, shapes)))
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != 2:
        raise ValueError(
            f"backbone {name!r} gives {shape} for two images, expected one feature vector for each; choose a "
            "model with a pooled or class-token output (timm names encoders without one '..._enc')"
        )
    return shape[1], options


def _output(backbone: nn.Module, images: Tensor) -> tuple[int, ...] | str:
    """Return the shape of what a backbone gives, or its type where it is no tensor."""
    output = backbone(images)
    return tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
