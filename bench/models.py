"""The shapes that are benchmarked: timm's own, without the classifier."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import groupby

import torch

from mist_ext.system import suggest

MODELS = {
    "vit_ti": "vit_tiny_patch16_224",
    "vit_s": "vit_small_patch16_224",
    "vit_b": "vit_base_patch16_224",
    "vit_l": "vit_large_patch16_224",
    "vit_h": "vit_huge_patch14_224",
    "vit_g": "vit_giant_patch14_224",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Layout:
    """A model's parameters, as far as a benchmark needs to know them.

    Attributes
    ----------
    shapes : list of tuple of int
    blocks : list of list of int
        Positions of the tensors, by the layer they belong to: a vision transformer's blocks have equal shapes.
    """

    shapes: list[tuple[int, ...]]
    blocks: list[list[int]]


SMALL = Layout([(64, 33), (3, 5, 7), (64,), (1, 1), (200, 50), (1000,)], [[0, 1, 2], [3, 4, 5]])  # to verify on


def model_name(given: str) -> str:
    """Check the name of a model, as the type of an option: a key of ``MODELS`` or a timm model.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no such model; it suggests others.
    """
    import timm

    if given in MODELS or timm.is_model(given):
        return given
    raise argparse.ArgumentTypeError(str(suggest.unknown("model", given, [*MODELS, *timm.list_models()])))


def layout(model: str) -> Layout:
    """The layout of a key of ``MODELS`` or of a timm model; no memory is used for weights."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(MODELS.get(model, model), num_classes=0)
    named = list(network.named_parameters())
    layers = groupby(range(len(named)), lambda i: next((part for part in named[i][0].split(".") if part.isdigit()), ""))
    return Layout([tuple(p.shape) for _, p in named], [list(group) for _, group in layers])
