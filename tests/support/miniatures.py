"""Miniature copies of the published data sets, in the exact formats on the disk, for every layout.

All classes are there, with a few small images each. An image's mean colour tells its class (`class_of`), so a label
can be checked and a backbone can learn it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

LEVELS = np.arange(22, 240, 35)  # 7^3 = 343 mean colours
COUNTS = (3, 2)  # training and test images of a class


def picture(label: int, row: int, size: tuple[int, int] = (80, 64)) -> Image.Image:
    """An image of a class: its colour, in stripes that vary from image to image."""
    random = np.random.default_rng([label, row])
    colour = LEVELS[[label // 49, label // 7 % 7, label % 7]]
    y, x = np.mgrid[: size[1], : size[0]]
    angle, phase = random.uniform(0, 2 * np.pi, 2)
    stripes = 18 * np.sin((np.cos(angle) * x + np.sin(angle) * y) / (2 + label % 5) + phase)
    stripes = stripes - stripes.mean() + random.normal(0, 3, stripes.shape)
    return Image.fromarray((colour + stripes[..., None]).clip(0, 255).round().astype(np.uint8))


def class_of(image: Image.Image) -> int:
    """The label that `picture` was given."""
    mean = np.asarray(image, dtype=float).mean((0, 1))
    high, middle, low = np.abs(mean[:, None] - LEVELS).argmin(1)
    return int(49 * high + 7 * middle + low)


def class_folders(folder: Path, names: Sequence[str], parts: dict[str, int], suffix: str = "jpg") -> None:
    """``folder/<part>/<class>/``; for each part the number of its images of a class."""
    first = 0
    for part, count in parts.items():
        for label, name in enumerate(names):
            (folder / part / name).mkdir(parents=True)
            for row in range(first, first + count):
                picture(label, row).save(folder / part / name / f"image_{row}.{suffix}")
        first += count


def two_parts(test: str) -> dict[str, int]:
    """The parts ``train`` and ``test`` or ``val``."""
    return dict(zip(("train", test), COUNTS, strict=True))


def wnids() -> list[str]:
    """200 names as ImageNet's classes have them."""
    return [f"n{1443537 + 31 * label:08d}" for label in range(200)]


def imagenet_r(root: Path, test: str = "test") -> None:
    """``imagenet-r/{train,test or val}/<wnid>/``."""
    class_folders(root / "imagenet-r", wnids(), two_parts(test))


def imagenet_r_tree(root: Path, lists: Iterable[str] = ("train", "test"), style: str = "txt") -> None:
    """``imagenet-r/<wnid>/`` with lists of the given parts; as text, or as the YAML of CODA-Prompt."""
    class_folders(root / "imagenet-r", wnids(), {"": sum(COUNTS)})
    rows = {"train": range(COUNTS[0]), "test": range(COUNTS[0], sum(COUNTS))}
    for part in lists:
        names = [f"{wnid}/image_{row}.jpg" for wnid in wnids() for row in rows[part]]
        if style == "yaml":
            targets = [label for label in range(200) for _ in rows[part]]
            text = "data:\n" + "".join(f"- data/imagenet-r/{name}\n" for name in names)
            text += "targets:\n" + "".join(f"- {target}\n" for target in targets)
        else:
            text = "".join(f"{name} {wnids().index(name.split('/')[0])}\n" for name in names)
        (root / "imagenet-r" / f"imagenet-r_{part}.{style}").write_text(text)


def imagenet_a(root: Path, test: str = "test") -> None:
    """``imagenet-a/{train,test}/<wnid>/``."""
    class_folders(root / "imagenet-a", wnids(), two_parts(test))


def numbered(root: Path, folder: str, classes: int) -> None:
    """``FOLDER/{train,test}/<class>/``, the classes called by numbers, as LAMDA-PILOT's archives have them."""
    class_folders(root / folder, [f"{label:03d}" for label in range(classes)], two_parts("test"))


def birds() -> list[str]:
    """200 names as CUB's classes have them."""
    return [f"{label + 1:03d}.Bird_{chr(65 + label % 26)}" for label in range(200)]


def cub200(root: Path, folder: str = "cub", test: str = "test") -> None:
    """``cub/{train,test}/<class>/`` or ``cub_200/{train,val}/<class>/``: the resampled split."""
    class_folders(root / folder, birds(), two_parts(test))


def cub200_official(root: Path) -> None:
    """``CUB_200_2011/`` with its lists: the official split."""
    folder = root / "CUB_200_2011"
    class_folders(folder, birds(), {"images": sum(COUNTS)})
    rows = [(label, name, row) for label, name in enumerate(birds()) for row in range(sum(COUNTS))]
    lists = {
        "classes.txt": (f"{label + 1} {name}" for label, name in enumerate(birds())),
        "images.txt": (f"{n} {name}/image_{row}.jpg" for n, (_, name, row) in enumerate(rows, 1)),
        "image_class_labels.txt": (f"{n} {label + 1}" for n, (label, _, _) in enumerate(rows, 1)),
        "train_test_split.txt": (f"{n} {int(row < COUNTS[0])}" for n, (_, _, row) in enumerate(rows, 1)),
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def models(separator: str = "-") -> list[str]:
    """196 names as Stanford Cars' classes have them; class folders have no slash."""
    names = [f"Make{label:03d} Sedan 2012" for label in range(196)]
    return [*names[:150], f"Make150 C{separator}V Van 2012", *names[151:]]


def cars196(root: Path, folder: str = "cars196", test: str = "val") -> None:
    """``cars196/{train,val}/<class>/`` or ``cars/{train,test}/<class>/``."""
    class_folders(root / folder, models(), two_parts(test))


def cars196_official(root: Path, nested: bool = False) -> None:
    """``stanford_cars/`` with the devkit; as some copies have it, the images in a folder in a folder."""
    from scipy.io import savemat

    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    # Class numbers are positions in the devkit's list, which is not in the order of class folders here.
    order = np.random.default_rng(0).permutation(196)
    names = np.array(models("/"), dtype=object)[order]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    number = {int(label): position for position, label in enumerate(order, 1)}
    places = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    first = 0
    for part, count, place in zip(("cars_train", "cars_test"), COUNTS, places, strict=True):
        images = folder / part / part if nested else folder / part
        images.mkdir(parents=True)
        entries: list[tuple[Any, ...]] = []
        for label in range(196):
            for row in range(first, first + count):
                entries.append((1, 1, 80, 64, number[label], f"{len(entries) + 1:05d}.jpg"))
                picture(label, row).save(images / entries[-1][-1])
        first += count
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        annotations = np.array(entries, dtype=[(name, object) for name in fields])
        savemat(folder / place, {"annotations": annotations[None]})


def cifar100(root: Path, counts: tuple[int, int] = COUNTS, python3: bool = False) -> None:
    """``cifar-100-python/{train,test,meta}``, pickled as Python 2 did it, or as a copy that Python 3 wrote anew."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    first = 0
    for part, count in zip(("train", "test"), counts, strict=True):
        rows = [(label, row) for row in range(first, first + count) for label in range(100)]
        pixels = [np.asarray(picture(label, row, (32, 32))).transpose(2, 0, 1).ravel() for label, row in rows]
        labels = [label for label, _ in rows]
        content = {
            b"filenames": [b"image_%d_s_%06d.png" % each for each in rows],
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": labels,
            b"coarse_labels": [label // 5 for label in labels],
            b"data": np.stack(pixels),
        }
        _pickle(folder / part, content, python3)
        first += count
    names = {b"fine_label_names": [b"thing_%02d" % label for label in range(100)]}
    names[b"coarse_label_names"] = [b"kind_%02d" % kind for kind in range(20)]
    _pickle(folder / "meta", names, python3)


def _pickle(path: Path, content: dict[bytes, Any], python3: bool) -> None:
    with open(path, "wb") as file:
        pickle.dump(content, file) if python3 else Python2Pickler(file, protocol=2).dump(content)


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: byte strings as such, and arrays by the names that NumPy had then."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, text: bytes | str) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, each: Any, name: str | None = None) -> None:
        module = each.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{each.__name__}\n".encode())
        self.memoize(each)


def few_classes(root: Path, classes: int) -> None:
    """Write so few classes of the data sets of the presets; CIFAR's archive has all of its own."""
    cifar100(root)
    every = {"imagenet-r": wnids(), "imagenet-a": wnids(), "cub": birds(), "cars": models()}
    for folder, names in every.items():
        class_folders(root / folder, names[:classes], two_parts("test"))
