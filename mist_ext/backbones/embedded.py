"""The backbones whose weights come with the package: small ViTs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

SIDE, PATCH = 32, 8
_ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True)
class Embedded:
    """A ViT for images of 32 pixels in patches of 8, and where its weights are.

    Parameters
    ----------
    name : str
    width, depth, heads : int
        Of the tokens, and the numbers of blocks and of attention's heads.
    """

    name: str
    width: int
    depth: int
    heads: int

    @property
    def weights(self) -> Path:
        """The file of the pre-trained weights (fp16)."""
        return _ASSETS / f"{self.name}.safetensors"

    @property
    def description(self) -> str:
        """What a reader of the weights' file is told."""
        return (
            f"timm VisionTransformer, {SIDE}x{SIDE} input, patch {PATCH}, width {self.width}, depth {self.depth}, "
            f"heads {self.heads}"
        )

    def create(self) -> nn.Module:
        """Make the backbone with random weights."""
        from timm.models.vision_transformer import VisionTransformer

        backbone = VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            num_classes=0,
            weight_init="jax",
        )
        settings: Any = {
            "architecture": self.name,
            "input_size": (3, SIDE, SIDE),
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        }
        backbone.pretrained_cfg = settings
        return backbone


EMBEDDED = {one.name: one for one in (Embedded("vit_nano", 128, 6, 4), Embedded("vit_nano.scripts", 128, 6, 4))}
