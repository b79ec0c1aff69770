"""What every data source gives: images with integer labels, in a training and a test part."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mist_ext.data.decode import BrokenImage as BrokenImage
from mist_ext.data.decode import decode
from mist_ext.data.transforms import AsStored, Transform
from mist_ext.seeding import generator


class ImageSet(Dataset[tuple[Tensor, int]], ABC):
    """Labelled images as they are stored.

    An item is ``(image, label)``, the image float32 ``[3, height, width]`` in [0, 1].

    Attributes
    ----------
    labels : Tensor
        int64, ``[n]``, from 0 to classes - 1.
    as_shown : bool
        How `decode.decode` reads image files of this data set, also those given to ``mist predict``.
    """

    labels: Tensor
    as_shown = True

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return pixels_of(self.read(index)).to(torch.float32) / 255, int(self.labels[index])

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Decode an image to RGB.

        Parameters
        ----------
        index : int
            The image's position, from 0 to n - 1.

        Returns
        -------
        Image
            8 bits a channel, of any size.

        Raises
        ------
        BrokenImage
            If it cannot be decoded.
        """

    def inspect(self, index: int) -> tuple[Image.Image, tuple[str, ...]]:
        """Decode an image as `read` does, and say what that changed.

        Returns
        -------
        Image
        tuple of str
            What `decode.decode` changed, in words.
        """
        return self.read(index), ()

    @abstractmethod
    def where(self, index: int) -> str:
        """Return where an image comes from, for messages: its path, if it has one."""

    @abstractmethod
    def subset(self, rows: Tensor) -> ImageSet:
        """Return some of the images with their labels.

        Parameters
        ----------
        rows : Tensor
            bool ``[n]``, or int64 positions.
        """


def pixels_of(image: Image.Image) -> Tensor:
    """Return an RGB image's pixels: uint8 ``[3, height, width]``, contiguous."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class Images(ImageSet):
    """Images of one size in memory.

    Parameters
    ----------
    pixels : Tensor
        uint8, ``[n, 3, height, width]``.
    labels : Tensor
        int64, ``[n]``.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels
        self.labels = labels

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pixels[index].to(torch.float32) / 255, int(self.labels[index])

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index].permute(1, 2, 0).contiguous().numpy())

    def where(self, index: int) -> str:
        return f"image {index}"

    def subset(self, rows: Tensor) -> Images:
        return Images(self.pixels[rows], self.labels[rows])


class DrawnImages(Images):
    """Images that are drawn once their pixels are asked for; a subset taken before that draws its own alone.

    Parameters
    ----------
    draw : callable
        From positions, int64 ``[k]``, to their images, uint8 ``[k, 3, height, width]``.
    labels : Tensor
        int64, ``[n]``.
    positions : Tensor, optional
        int64, ``[n]``: what to draw, by default 0 to n - 1.
    """

    def __init__(self, draw: Callable[[Tensor], Tensor], labels: Tensor, positions: Tensor | None = None) -> None:
        self.labels = labels
        self._draw, self._positions = draw, torch.arange(len(labels)) if positions is None else positions

    @cached_property
    def pixels(self) -> Tensor:  # type: ignore[override]
        """The images: uint8 ``[n, 3, height, width]``."""
        return self._draw(self._positions)

    def subset(self, rows: Tensor) -> Images:
        if "pixels" in self.__dict__:
            return super().subset(rows)
        return DrawnImages(self._draw, self.labels[rows], self._positions[rows])


class ImageFiles(ImageSet):
    """Images in files, decoded when they are asked for.

    Parameters
    ----------
    paths : list of Path
        n files.
    labels : Tensor
        int64, ``[n]``.
    as_shown : bool
        Whether they are turned as their EXIF orientation says and put on white where they are transparent; published
        pipelines do neither.
    """

    def __init__(self, paths: list[Path], labels: Tensor, as_shown: bool = True) -> None:
        # Two arrays instead of a list of objects: reading a list in a forked worker would copy its pages.
        names = [os.fsencode(path) for path in paths]
        self._names = np.frombuffer(b"".join(names), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, names)])
        self.labels = labels
        self.as_shown = as_shown

    def read(self, index: int) -> Image.Image:
        return self.inspect(index)[0]

    def inspect(self, index: int) -> tuple[Image.Image, tuple[str, ...]]:
        return decode(self.where(index), self.as_shown)

    def where(self, index: int) -> str:
        return os.fsdecode(self._names[self._ends[index] : self._ends[index + 1]].tobytes())

    def subset(self, rows: Tensor) -> ImageFiles:
        chosen = torch.arange(len(self))[rows].tolist()
        return ImageFiles([Path(self.where(row)) for row in chosen], self.labels[rows], self.as_shown)


@dataclass(frozen=True)
class Source:
    """A labelled data set before it is cut into tasks.

    Attributes
    ----------
    name : str
        As given to ``--data``.
    class_names : tuple of str
        In sorted order; a label is a position in it.
    train, test : ImageSet
        The two parts. Nothing but the final evaluation reads ``test``.
    tasks : int
        The default number of tasks.
    transform : type of Transform
        What makes the backbone's input of an image; called with the input's size.
    mean, std : tuple of float
        The published normalisation of each channel in [0, 1]; 0 and 1 where there is none.
    layout : str
        What was found on the disk, in words; results of different layouts may not be comparable.
    remarks, problems : tuple of str
        What else was found there, in words: worth knowing, or making the data set another than it seems to be.
    """

    name: str
    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    tasks: int
    transform: type[Transform] = AsStored
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "comes with the package"
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return the numbers of images and classes, and a digest of classes, file names and labels, not of pixels."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.train, self.test):
            for index, label in enumerate(part.labels.tolist()):
                digest.update(f"{Path(part.where(index)).name} {label}\n".encode("utf-8", "surrogateescape"))
        digest.update("\n".join(self.class_names).encode("utf-8", "surrogateescape"))
        train, test = len(self.train), len(self.test)
        return f"{train} training and {test} test images of {len(self.class_names)} classes ({digest.hexdigest()})"

    def validation(self, fraction: float = 0.25) -> Source:
        """Return this source with a part of every class's training images in place of the test part.

        The part is fixed, so settings can be chosen on it, and the test images are not read.

        Parameters
        ----------
        fraction : float
            Of every class's training images.

        Returns
        -------
        Source
            The rest of the training images as ``train``, the part as ``test``.

        Raises
        ------
        ValueError
            If a class has fewer than 2 training images.
        """
        held_out = self.held_out("validation", fraction)
        return replace(self, train=self.train.subset(~held_out), test=self.train.subset(held_out))

    def with_fewer(self, images_per_class: int) -> Source:
        """Return this source with so many training images of each class, or all of a class that has no more.

        The draw is fixed, and a larger number contains a smaller one.

        Parameters
        ----------
        images_per_class : int
        """
        chosen = torch.zeros(len(self.train), dtype=torch.bool)
        for label in range(len(self.class_names)):
            rows = (self.train.labels == label).nonzero().flatten()
            order = torch.randperm(len(rows), generator=generator("images_per_class", self.name, label))
            chosen[rows[order[:images_per_class]]] = True
        return replace(self, train=self.train.subset(chosen))

    def held_out(self, purpose: str, fraction: float) -> Tensor:
        """Choose a fixed part of every class's training images, the same in every process.

        Parameters
        ----------
        purpose : str
            Names the draw: the parts of two purposes are independent.
        fraction : float
            Of every class's training images; at least one image is chosen.

        Returns
        -------
        Tensor
            bool ``[n]``, True for the chosen training images.

        Raises
        ------
        ValueError
            If a class has fewer than 2 training images.
        """
        chosen = torch.zeros(len(self.train), dtype=torch.bool)
        for label in range(len(self.class_names)):
            rows = (self.train.labels == label).nonzero().flatten()
            if len(rows) < 2:
                raise ValueError(f"class {self.class_names[label]!r} has {len(rows)} images, too few to hold one out")
            order = torch.randperm(len(rows), generator=generator(purpose, self.name, label))
            chosen[rows[order[: max(1, round(fraction * len(rows)))]]] = True
        return chosen
