"""A source's images at a backbone's input size; results of the transform's fixed part are kept in memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mist_ext.data.image_sets import ImageSet, pixels_of
from mist_ext.data.transforms import Transform
from mist_ext.data.workers import FORKS


class ImageCache:
    """RGB images of one size in memory that forked worker processes share; each is made when it is first used.

    Anonymous memory, not torch's shared tensors: those are files in /dev/shm, which containers limit to 64 MB.

    Parameters
    ----------
    count : int
        Images that it has room for.
    side : int
        Height and width in pixels.
    """

    def __init__(self, count: int, side: int) -> None:
        size = side * side * 3
        memory = np.frombuffer(mmap.mmap(-1, max(1, count * (size + 1))), dtype=np.uint8)
        self._there = memory[:count]
        self._pixels = memory[count : count * (size + 1)].reshape(count, side, side, 3)

    @staticmethod
    def bytes(count: int, side: int) -> int:
        """Return the bytes that ``ImageCache(count, side)`` takes when it is full."""
        return count * (side * side * 3 + 1)

    def get(self, row: int, make: Callable[[], Image.Image]) -> Image.Image:
        """Return an image, made first if the cache lacks it; processes that make it at once write the same bytes.

        Parameters
        ----------
        row : int
            From 0 to ``count`` - 1.
        make : callable
            Returns the image: RGB, ``side`` pixels high and wide.
        """
        if not self._there[row]:
            self._pixels[row] = np.asarray(make())
            self._there[row] = 1
        return Image.fromarray(self._pixels[row])


class Views:
    """The views of one part of a source.

    Parameters
    ----------
    images : ImageSet
    transform : Transform
        Makes the backbone's input of an image.
    mean, std : tuple of float
        Normalise each channel, whose values are in [0, 1].
    memory : int
        Bytes that may be used for keeping decoded images.
    workers : int
        Processes that decode.
    augmented : bool
        Whether training views are drawn where the transform draws; else they are evaluation's views.

    Attributes
    ----------
    drawn : bool
        Whether a training view is drawn at random.
    memory_used : int
        Bytes of decoded images in memory once all have been used.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: Transform,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        std: tuple[float, float, float] = (1.0, 1.0, 1.0),
        memory: int = 0,
        workers: int = 0,
        augmented: bool = True,
    ) -> None:
        self.images = images
        self.transform = transform
        self.drawn = transform.random and augmented
        self.workers = workers
        self.memory_used = 0
        self.mean, self.std = mean, std
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self._plain = not any(mean) and all(value == 1 for value in std)
        self._evaluated = self._cache(transform.size, memory)
        self._prepared = self._cache(transform.prepared_side, memory) if self.drawn else None

    def _cache(self, side: int | None, memory: int) -> ImageCache | None:
        count = len(self.images)
        if side is None or (self.workers and not FORKS) or self.memory_used + ImageCache.bytes(count, side) > memory:
            return None
        self.memory_used += ImageCache.bytes(count, side)
        return ImageCache(count, side)

    def evaluation(self, row: int) -> Tensor:
        """Return an image's view for evaluation, without any draw.

        Parameters
        ----------
        row : int
            The image's position.

        Returns
        -------
        Tensor
            uint8, ``[3, size, size]``.

        Raises
        ------
        BrokenImage
            If the image cannot be decoded.
        """

        def make() -> Image.Image:
            return self.transform.evaluate(self.images.read(row))

        return pixels_of(self._evaluated.get(row, make) if self._evaluated else make())

    def training(self, row: int, seed: int) -> Tensor:
        """Return a training view of an image; the same image and seed give the same view.

        Parameters
        ----------
        row : int
            The image's position.
        seed : int
            Of all draws.

        Returns
        -------
        Tensor
            uint8, ``[3, size, size]``.

        Raises
        ------
        BrokenImage
            If the image cannot be decoded.
        """
        if not self.drawn:
            return self.evaluation(row)

        def make() -> Image.Image:
            return self.transform.prepare(self.images.read(row))

        prepared = self._prepared.get(row, make) if self._prepared else make()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return pixels_of(self.transform.augment(prepared))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise images.

        Parameters
        ----------
        pixels : Tensor
            uint8, ``[n, 3, size, size]``.

        Returns
        -------
        Tensor
            float32, of the same shape and on the same device.
        """
        images = pixels.to(torch.float32).div_(255)
        if self._plain:
            return images
        mean, std = (values.to(pixels.device) for values in (self._mean, self._std))
        return images.sub_(mean).div_(std)
