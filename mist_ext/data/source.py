"""What every data set gives: images with integer labels, in a training and a test part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mist_ext.data.image_sets import ImageFiles as ImageFiles
from mist_ext.data.image_sets import Images as Images
from mist_ext.data.image_sets import ImageSet
from mist_ext.data.transforms import AsStored, Transform
from mist_ext.seeding import generator


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
        for rows in self._shuffled("images_per_class"):
            chosen[rows[:images_per_class]] = True
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
        for name, rows in zip(self.class_names, self._shuffled(purpose), strict=True):
            if len(rows) < 2:
                raise ValueError(f"class {name!r} has {len(rows)} images, too few to hold one out")
            chosen[rows[: max(1, round(fraction * len(rows)))]] = True
        return chosen

    def _shuffled(self, purpose: str) -> Iterator[Tensor]:
        """Yield the positions of each class's training images, in an order that follows from the purpose."""
        for label in range(len(self.class_names)):
            rows = (self.train.labels == label).nonzero().flatten()
            yield rows[torch.randperm(len(rows), generator=generator(purpose, self.name, label))]
