"""Labelled images: in memory, drawn when they are asked for, or in files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mist_ext.data.decode import decode


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
