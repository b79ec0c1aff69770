"""Trained classifiers on the disk: what a run leaves for ``mist predict`` and for other code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta, Struct
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mist_ext import backbones, methods
from mist_ext.data.decode import DAMAGED, BrokenImage, decode, rgb
from mist_ext.data.image_sets import pixels_of
from mist_ext.data.transforms import Transform
from mist_ext.deltas import TaskDelta
from mist_ext.deltas.digests import digest_of, tensor_digest
from mist_ext.methods.method import Method
from mist_ext.methods.trained import MOST_CLASSES
from mist_ext.results.record import Option
from mist_ext.runs import classifier_paths
from mist_ext.system.bounded_files import decode_json, utf8_path
from mist_ext.system.files import write_atomically
from mist_ext.system.names import shown

_BACKBONE, _METHOD = "backbone/", "method/"
DeltaName = Annotated[str, Meta(pattern=r"^delta-seed\d{1,10}-task\d{3,5}\.safetensors$")]
Channel = Annotated[float, Meta(ge=-1e6, le=1e6)]
Positive = Annotated[float, Meta(gt=1e-6, le=1e6)]


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
    as_shown : bool
        How image files are read (`decode.decode`): as those that the method learned from.
    """

    backbone: nn.Module
    method: Method
    class_names: list[str]
    transform: Transform
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    as_shown: bool = True

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
        """Return the scores of every class for images, open ones or paths: float64 ``[n, classes]``.

        Raises
        ------
        BrokenImage
            If an image cannot be decoded; the message names it.
        """
        pixels = torch.stack([pixels_of(self.transform.evaluate(_opened(image, self.as_shown))) for image in images])
        parameter = next(self.backbone.parameters())
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        normalised = (pixels.to(torch.float32) / 255 - mean) / std
        self.backbone.eval()
        features = [self.method.features(part.to(parameter.device)) for part in normalised.split(64)]
        return self.method.scores(torch.cat(features))

    def predict(self, images: Iterable[Image.Image | str | Path], top: int = 5) -> list[list[tuple[str, float]]]:
        """Return the names and scores of the best classes for each image, best first."""
        best = self.scores(images).topk(min(top, len(self.class_names)), dim=1)
        return [
            [(self.class_names[position], score) for position, score in zip(positions, scores, strict=True)]
            for positions, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def to(self, device: torch.device | str) -> Classifier:
        """Move the backbone; the method follows its features."""
        self.backbone.to(device)
        return self


class Description(Struct, forbid_unknown_fields=True):
    """What a classifier's file says beside its tensors.

    Attributes
    ----------
    backbone, weights : str
        As options.
    method : str
    method_options : dict
    class_names : list of str
        By the position that the method knows a class by.
    transform : str
        Its class's name.
    size : int
        Of the backbone's input, in pixels.
    mean, std : tuple of float
    as_shown : bool
        As `decode` reads images.
    state : dict
        What the method predicts with beside its tensors.
    digests : dict
        Of every tensor in the file, by its name there.
    deltas : dict of str
        The files beside it that lead, one after the other, from the weights to the backbone's, with the digest of the
        backbone after each; empty where the file holds the backbone, or it is as it was created.
    """

    backbone: str
    weights: str
    method: str
    method_options: dict[str, Option]
    class_names: Annotated[list[str], Meta(min_length=1, max_length=MOST_CLASSES)]
    transform: str
    size: Annotated[int, Meta(ge=1)]
    mean: tuple[Channel, Channel, Channel]
    std: tuple[Positive, Positive, Positive]
    as_shown: bool
    state: dict[str, Option] = {}
    digests: dict[str, str] = {}
    deltas: dict[DeltaName, str] = {}


def save_classifier(
    folder: Path,
    seed: int,
    weights: Mapping[str, Tensor] | None,
    method: Method,
    description: dict[str, Any],
    task: int | None = None,
) -> Path:
    """Write what `load` reads.

    Parameters
    ----------
    folder : Path
        Of the experiment.
    seed : int
    weights : mapping of str to Tensor, or None
        The backbone's; None where it is as it was created, which needs no copy of them.
    method : Method
    description : dict
        Of a `Description`, but for its state and digests.
    task : int, optional
        The last one that it has learned, from 1; None for all.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in (weights or {}).items():
        tensors[_BACKBONE + name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    plain: dict[str, Any] = {}
    for name, entry in method.inference_state().items():
        if isinstance(entry, Tensor):
            tensors[_METHOD + name] = entry.cpu().contiguous()
        else:
            plain[name] = entry
    digests = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    content = msgspec.json.encode(Description(**description, state=plain, digests=digests))
    path = folder / classifier_paths.name(seed, task)
    # In one entry: safetensors writes several in any order, and equal classifiers are to have equal files.
    write_atomically(path, save(tensors, {"classifier": f"{digest_of(content)} {content.decode()}"}))
    return path


def load(run: str | Path, seed: int | None = None, task: int | None = None) -> Classifier:
    """Return the trained classifier of a run.

    Parameters
    ----------
    run : path-like
        An experiment's folder (data-tuner-method), or the folder of a run that has one experiment only.
    seed : int, optional
        Which of the run's seeds; by default the first one that was saved.
    task : int, optional
        The last task that it has learned, from 1, of a run with ``--deltas``; by default all.

    Returns
    -------
    Classifier
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such classifier; the message lists those that are there.
    ValueError
        If it is damaged, or of another version; the message names the file and what is wrong in it.
    """
    path = classifier_paths.found(Path(run), seed, task)
    try:
        with utf8_path(path) as name, safe_open(name, framework="pt") as file:
            described = _described(file.metadata() or {}, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        _check_tensors(tensors, described.digests)
        return _restored(described, tensors, path.parent)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} belongs to weights that are not there: {error}") from error
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).removeprefix(f"{path} ").split())
        raise ValueError(f"{path} is no whole classifier of this version: {reason}; repeat the run") from error


def _described(metadata: Mapping[str, str], path: Path) -> Description:
    digest, _, content = metadata.get("classifier", "").partition(" ")
    if digest != digest_of(content.encode()):
        raise ValueError("its description does not have its digest")
    return decode_json(content, Description, str(path))


def _check_tensors(tensors: Mapping[str, Tensor], digests: Mapping[str, str]) -> None:
    """Raise ValueError unless the tensors are those that were saved, all finite."""
    if odd := sorted(tensors.keys() ^ digests.keys()):
        raise ValueError(f"its tensor {odd[0]!r} is {'surplus' if odd[0] in tensors else 'missing'}")
    for name, tensor in tensors.items():
        if tensor_digest(tensor) != digests[name]:
            raise ValueError(f"its tensor {name!r} does not have its digest")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"its tensor {name!r} holds numbers that are not finite")


def _restored(described: Description, tensors: Mapping[str, Tensor], folder: Path) -> Classifier:
    own = {name.removeprefix(_BACKBONE): value for name, value in tensors.items() if name.startswith(_BACKBONE)}
    backbone = backbones.create(described.backbone, "none" if own else described.weights)
    if own:
        backbone.to(next(value.dtype for value in own.values() if value.is_floating_point()))
        backbone.load_state_dict(own)
    for name, digest in described.deltas.items():
        delta = TaskDelta.load(folder / name)
        if delta.result_digest != digest:
            raise ValueError(f"{name} is not the delta that it was saved with: it leads to another backbone")
        delta.apply_(backbone)
    if described.deltas:
        delta.verify(backbone, applied=True)
    size = backbones.input_spec(backbone).size
    if described.size != size:
        raise ValueError(f"its images have {described.size} pixels a side, but {described.backbone} takes {size}")
    method = methods.create(described.method, **described.method_options)
    state: dict[str, Any] = {name.removeprefix(_METHOD): tensors[name] for name in tensors if name.startswith(_METHOD)}
    method.check_fits(backbone, state)
    method.attach(backbone)
    method.load_inference_state(state | described.state)
    transform = Transform.named(described.transform)(size)
    classifier = Classifier(
        backbone.eval(), method, described.class_names, transform, described.mean, described.std, described.as_shown
    )
    # What shapes do not tell shows in a black image's scores.
    shape = list(classifier.scores([Image.new("RGB", (size, size))]).shape)
    if shape != [1, len(described.class_names)]:
        raise ValueError(f"it gives {shape[-1]} scores for {len(described.class_names)} classes")
    return classifier


def _opened(image: Image.Image | str | Path, as_shown: bool) -> Image.Image:
    if not isinstance(image, Image.Image):
        return decode(image, as_shown)[0]
    try:
        return rgb(image, as_shown)[0]
    except DAMAGED as error:
        raise BrokenImage(f"{image} cannot be decoded ({error})") from error
