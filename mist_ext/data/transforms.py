"""How an image becomes a backbone's input: the published transforms, each in a fixed part and a drawn one.

What the fixed part makes can be kept in memory (`mist_ext.data.views`). All resampling is Pillow's, as in the published
code. Its sizes are published for an input of 224 pixels, and scale with the backbone's. torchvision is imported when
one of its transforms is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from PIL import Image

from mist_ext.system.suggest import unknown

if TYPE_CHECKING:
    from torchvision.transforms import v2

LONGEST = 100  # times the shorter side: the longer one is cut to that, or resizing could take gigabytes
PUBLISHED_SIZE = 224  # pixels: the input for which the other sizes below were published


class Transform(ABC):
    """Makes images of one size.

    Parameters
    ----------
    size : int
        Height and width of the backbone's input, in pixels.

    Attributes
    ----------
    random : bool
        Class attribute: whether the training view is drawn at random.
    prepared_side : int or None
        Height and width of what `prepare` makes; None where it varies from image to image.
    """

    random = True
    prepared_side: int | None = None

    def __init__(self, size: int) -> None:
        self.size = size

    @staticmethod
    def named(name: str) -> type[Transform]:
        """Return a transform's class by its name, as saved files give it.

        Raises
        ------
        ValueError
            If there is no such transform; the message names those there are.
        """
        kinds = {kind.__name__: kind for kind in Transform.__subclasses__()}
        if name not in kinds:
            raise unknown("transform", name, kinds)
        return kinds[name]

    def prepare(self, image: Image.Image) -> Image.Image:
        """Apply the fixed part of the training view.

        Parameters
        ----------
        image : Image
            RGB, of any size.

        Returns
        -------
        Image
            RGB; ``prepared_side`` pixels high and wide, unless that is None.
        """
        return image

    @abstractmethod
    def augment(self, image: Image.Image) -> Image.Image:
        """Apply the drawn part of the training view, by torch's global generator on the CPU.

        Parameters
        ----------
        image : Image
            What `prepare` returned.

        Returns
        -------
        Image
            RGB, ``size`` pixels high and wide.
        """

    @abstractmethod
    def evaluate(self, image: Image.Image) -> Image.Image:
        """Make the view for features and evaluation, in which nothing is drawn.

        Parameters
        ----------
        image : Image
            RGB, of any size.

        Returns
        -------
        Image
            RGB, ``size`` pixels high and wide.
        """


class AsStored(Transform):
    """The whole image, resampled bilinearly where the backbone takes another size; nothing is drawn."""

    random = False

    def augment(self, image: Image.Image) -> Image.Image:
        return self.evaluate(image)

    def evaluate(self, image: Image.Image) -> Image.Image:
        wanted = (self.size, self.size)
        return image if image.size == wanted else image.resize(wanted, Image.Resampling.BILINEAR)


class RandomCrops(Transform):
    """Published for CIFAR-100, ImageNet-R, ImageNet-A and CUB-200.

    Training: a random crop of 5 to 100 % of the area, with ratio 3/4 to 4/3, and a flip. Evaluation: the shorter side
    resized to 256 (bicubic), of which the central 224 x 224 pixels are taken.
    """

    def __init__(self, size: int) -> None:
        from torchvision.transforms import v2

        super().__init__(size)
        self._training = v2.Compose(
            [v2.RandomResizedCrop(size, scale=(0.05, 1.0), ratio=(3 / 4, 4 / 3)), v2.RandomHorizontalFlip()]
        )
        self._evaluation = _central(size)

    def augment(self, image: Image.Image) -> Image.Image:
        return self._training(image)

    def evaluate(self, image: Image.Image) -> Image.Image:
        return self._evaluation(image)


class ResizedCrops(Transform):
    """Published for Cars-196: resized to 300 x 300 (bicubic), of which a random 224 x 224 pixels are taken, and a flip.

    Evaluation as in `RandomCrops`.
    """

    def __init__(self, size: int) -> None:
        from torchvision.transforms import v2

        super().__init__(size)
        self.prepared_side = _scaled(300, size)
        self._resize = v2.Resize((self.prepared_side, self.prepared_side), v2.InterpolationMode.BICUBIC)
        self._training = v2.Compose([v2.RandomCrop(size), v2.RandomHorizontalFlip()])
        self._evaluation = _central(size)

    def prepare(self, image: Image.Image) -> Image.Image:
        return self._resize(image)

    def augment(self, image: Image.Image) -> Image.Image:
        return self._training(image)

    def evaluate(self, image: Image.Image) -> Image.Image:
        return self._evaluation(image)


def _central(size: int) -> v2.Compose:
    from torchvision.transforms import v2

    resize = v2.Resize(_scaled(256, size), interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([_bounded, resize, v2.CenterCrop(size)])


def _bounded(image: Image.Image) -> Image.Image:
    """Return the middle of an image that is far longer than wide, or far wider than long; any other unchanged."""
    most = LONGEST * min(image.size)
    if max(image.size) <= most:
        return image
    left, top = (max(0, side - most) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def _scaled(published: int, size: int) -> int:
    return round(published * size / PUBLISHED_SIZE)
