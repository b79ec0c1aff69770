"""Weights in the layout of Google's ViT archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_jax(backbone: Any, path: Path) -> None:
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
