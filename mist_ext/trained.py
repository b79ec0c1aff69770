"""Trained classifiers on the disk: what a run leaves for ``mist predict`` and for other code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mist_ext import backbones, methods
from mist_ext.data.source import BrokenImage, pixels_of
from mist_ext.data.transforms import Transform
from mist_ext.files import write_atomically
from mist_ext.methods.method import Method
from mist_ext.methods.trained import TrainedMethod
from mist_ext.names import shown

FILE = "classifier-seed{seed}.safetensors"
_BACKBONE, _METHOD = "backbone/", "method/"


@dataclass(repr=False)
class Classifier:
    """A backbone, the method that learned from its features, and the names of the classes.

    Attributes
    ----------
    backbone : Module
    method : Method
    class_names : list of str
        By the position that the method knows a class by.
    transform : Transform
        Makes the backbone's input of an image.
    mean, std : tuple of float
        Normalise each channel in [0, 1].
    """

    backbone: nn.Module
    method: Method
    class_names: list[str]
    transform: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __repr__(self) -> str:
        few = ", ".join(shown(name, 20) for name in self.class_names[:4])
        more = ", ..." if len(self.class_names) > 4 else ""
        parameters = list(self.backbone.parameters())
        where = f"{str(parameters[0].dtype).removeprefix('torch.')} on {parameters[0].device}" if parameters else ""
        return (
            f"Classifier of {len(self.class_names)} classes: {few}{more}\n"
            f"  method: {type(self.method).__name__}\n"
            f"  backbone: {type(self.backbone).__name__}, {sum(p.numel() for p in parameters):,} parameters, {where}"
        )

    @torch.no_grad()
    def scores(self, images: Iterable[Image.Image | str | Path]) -> Tensor:
        """Scores of every class for some images, given open or by their paths: float64 ``[n, classes]``.

        Raises
        ------
        BrokenImage
            If an image cannot be decoded; the message names it.
        """
        pixels = torch.stack([pixels_of(self.transform.evaluate(_opened(image))) for image in images])
        parameter = next(self.backbone.parameters())
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        normalised = (pixels.to(torch.float32) / 255 - mean) / std
        self.backbone.eval()
        features = [self._features(part.to(parameter.device)) for part in normalised.split(64)]
        return self.method.scores(torch.cat(features))

    def _features(self, pixels: Tensor) -> Tensor:
        if isinstance(self.method, TrainedMethod):
            return self.method.features(pixels)
        return self.backbone(pixels.to(next(self.backbone.parameters()).dtype)).float()

    def predict(self, images: Iterable[Image.Image | str | Path], top: int = 5) -> list[list[tuple[str, float]]]:
        """The names and scores of the best classes for each image, best first."""
        best = self.scores(images).topk(min(top, len(self.class_names)), dim=1)
        return [
            [(self.class_names[place], score) for place, score in zip(places, scores, strict=True)]
            for places, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def to(self, device: torch.device | str) -> Classifier:
        """Move the backbone; the method follows its features."""
        self.backbone.to(device)
        return self


def save_classifier(
    folder: Path, seed: int, weights: Mapping[str, Tensor] | None, method: Method, description: dict[str, Any]
) -> Path:
    """Write what `load` reads.

    Parameters
    ----------
    folder : Path
        Of the cell.
    seed : int
    weights : mapping of str to Tensor, or None
        The backbone's; None where it is as it was created, which needs no copy of them.
    method : Method
    description : dict
        ``backbone`` and ``weights`` as options, ``method`` and its options, ``class_names``, ``transform``, ``size``,
        ``mean``, ``std``.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in (weights or {}).items():
        tensors[_BACKBONE + name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    plain = {}
    for name, entry in method.inference_state().items():
        if isinstance(entry, Tensor):
            tensors[_METHOD + name] = entry.cpu().contiguous()
        else:
            plain[name] = entry
    content = {**description, "state": plain}
    path = folder / FILE.format(seed=seed)
    write_atomically(path, save(tensors, {"classifier": json.dumps(content)}))
    return path


def load(run: str | Path, seed: int | None = None) -> Classifier:
    """The trained classifier of a run.

    Parameters
    ----------
    run : path-like
        A cell's folder (data-tuner-method), or the folder of a run that has one cell only.
    seed : int, optional
        Which of the run's seeds; by default the first one that was saved.

    Returns
    -------
    Classifier
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such classifier; the message lists those that are there.
    """
    path = _found(Path(run), seed)
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["classifier"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no whole classifier: {error}; repeat the run") from error
    own = {name.removeprefix(_BACKBONE): value for name, value in tensors.items() if name.startswith(_BACKBONE)}
    backbone = backbones.create(content["backbone"], "none" if own else content["weights"])
    if own:
        backbone.to(next(value.dtype for value in own.values() if value.is_floating_point()))
        backbone.load_state_dict(own)
    method = methods.create(content["method"], **content["method_options"])
    state = {name.removeprefix(_METHOD): value for name, value in tensors.items() if name.startswith(_METHOD)}
    if isinstance(method, TrainedMethod):
        method.attach(backbone)
    method.load_inference_state({**state, **content["state"]})
    transform = Transform.named(content["transform"])(content["size"])
    mean, std = tuple(content["mean"]), tuple(content["std"])
    return Classifier(backbone.eval(), method, content["class_names"], transform, mean, std)


def _opened(image: Image.Image | str | Path) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    try:
        with Image.open(image) as opened:
            return opened.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenImage(f"{image} cannot be decoded as an image: {error}") from error


def _found(run: Path, seed: int | None) -> Path:
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no folder; give the folder of a run, or of one of its cells")
    pattern = FILE.format(seed="*" if seed is None else seed)
    own = sorted(run.glob(pattern), key=lambda path: int(path.stem.rpartition("seed")[2]))
    cells = sorted(run.glob(f"*/{pattern}"))
    if own:
        return own[0]
    if not cells:
        wanted = "no trained classifier" if seed is None else f"no trained classifier of seed {seed}"
        raise FileNotFoundError(f"{wanted} in {run}; runs keep them with --save first or --save all, once finished")
    folders = sorted({path.parent for path in cells})
    if len(folders) == 1:
        return _found(folders[0], seed)
    listed = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"{run} has several trained classifiers; give the folder of one: {listed}")
