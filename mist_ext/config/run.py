"""The configuration of a run: every option with its default, its bounds and its explanation."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from mist_ext import registry
from mist_ext.config import presets
from mist_ext.config.option import option
from mist_ext.config.tuning import TuningOptions
from mist_ext.registry import EMBEDDED
from mist_ext.system.bounded_files import read_text
from mist_ext.system.suggest import unknown

FILES = ("a data set of image files, not an embedded one", lambda options: options.data not in EMBEDDED)
NAMED = (
    "a data set that is looked for below data_root, such as cifar100",
    lambda options: options.data not in EMBEDDED and not options.data.startswith(registry.FOLDER),
)

MOST_ORDER_BYTES = 2**24


@dataclass
class Config(TuningOptions):
    """Everything that a run depends on; the same fields serve flags, YAML and Python."""

    data: str = option(
        "digits",
        "Data set: digits, glyphs, renditions, renditions_again, renditions_dev; or below --data-root: cifar100, "
        "imagenet_r, imagenet_a, cub200, cars196, objectnet, omnibenchmark, vtab; or folder:PATH, class folders "
        "below train and test (or val), or without a split. Images of a folder are turned as EXIF says and put on "
        "white, which published pipelines do not do. By default renditions, with the preset "
        "embedded/renditions; in Python digits.",
        group="data",
    )
    data_root: str | None = option(
        None, "Folder below which data sets are looked for; by default $MIST_DATA or data/.", group="data", needs=NAMED
    )
    download: bool = option(
        False, "Fetch the data set to --data-root where it has a public address.", group="data", needs=NAMED
    )
    test_fraction: float = option(
        0.2,
        "Share of every class that is held out for testing in a tree without a split.",
        group="data",
        above=0,
        below=1,
        needs=("data folder:PATH", lambda options: options.data.startswith(registry.FOLDER)),
    )
    classes_per_task: int | None = option(
        None, "New classes a task; by default the data set's own split.", group="data"
    )
    first_task_classes: int | None = option(
        None,
        "Classes of the first task, such as 50 for B50-Inc10; by default as many as of the others.",
        group="data",
    )
    class_order: list[str] = option(
        [],
        "A file with all classes in the order in which tasks bring them, a name or number (from 0) on each line; in "
        "YAML a list will do. By default each seed, or class_order_seed, draws one.",
        group="data",
        null=[],
    )
    evaluate_on: Literal["test", "validation"] = option(
        "test",
        "validation: a quarter of the training images is held out for it, and the test images are not read.",
        group="data",
    )
    images_per_class: int | None = option(
        None,
        "Training images of a class that are used, always the same ones, for few-shot learning or a quick trial; by "
        "default all.",
        group="data",
        at_least=1,
    )
    normalize: Literal["auto", "published", "model"] = option(
        "auto",
        "published: channels as the data set's published protocol has them. model: as the backbone was pre-trained. "
        "auto: published where there is such a protocol (embedded data with the embedded backbone too), else model.",
        group="data",
    )
    augmentation: Literal["auto", "none"] = option(
        "auto",
        "auto: training images are cropped and flipped at random, as was published, and as photographs can be. none: "
        "they look as test images do; for letters, scans or diagrams. MIST's second view is cropped and flipped all "
        "the same.",
        group="data",
        needs=FILES,
    )
    skip_broken: bool = option(
        False,
        "Do without images that cannot be decoded, instead of stopping before the task.",
        group="data",
        needs=FILES,
    )
    workers: int | None = option(
        None,
        "Processes that decode images; by default none for images in memory, else up to 8 cores.",
        group="data",
        at_least=0,
    )
    image_memory: float = option(
        4.0, "Decoded images are kept in at most this many GB.", group="data", at_least=0, at_most=1e9, needs=FILES
    )
    backbone: str = option(
        "vit_nano",
        "vit_nano, vit_nano.scripts, or the name of any timm model that gives a feature vector.",
        group="backbone",
    )
    weights: str = option(
        "pretrained", "pretrained, none, or a local .safetensors, .npz or .pth file.", group="backbone", null="none"
    )
    tuner: list[str] = option(["none", "mist"], f"One or more of: {', '.join(registry.TUNERS)}.", group="tuner")
    method: list[str] = option(
        ["simplecil", "ranpac"],
        f"One or more of: {', '.join(registry.METHODS)}.",
        group="method",
    )
    method_options: list[str] = option(
        [],
        "NAME=VALUE for every method that has the option, such as epochs=5, or METHOD.NAME=VALUE for one, such as "
        "l2p.length=3; by default what was published.",
        group="method",
    )
    seeds: list[int] = option([1993, 1994, 1995], "One run each: the class order and every draw follow from it.")
    class_order_seed: int | None = option(
        None,
        "Fixes the class order over all seeds; the field uses 1993. By default each seed has its own.",
        at_least=0,
        at_most=2**32 - 1,
    )
    device: str = option("auto", "auto takes a GPU where there is one; or cpu, cuda, cuda:1.")
    deterministic: bool = option(False, "Refuse GPU algorithms whose result varies from run to run.")
    checkpoint_every: str = option("5min", "How often an unfinished run is saved: 30s, 5min, 1h, or never.")
    diagnose: bool = option(
        False,
        "Measure what tuning on each task does to the backbone: drift of earlier classes' features, a linear probe on "
        "Latin letters, accuracy on the new classes alone.",
    )
    save: Literal["first", "all", "none"] = option(
        "first", "Whose trained classifiers are kept for mist predict: those of the first seed, of all, or none."
    )
    deltas: bool = option(
        False,
        "Keep what every task changed in the backbone, in a file for each task in the experiments' folders, for mist "
        "delta, and a classifier after every task; classifiers name these files instead of holding the backbone.",
        needs=("a tuner that changes the backbone", lambda options: any(name != "none" for name in options.tuner)),
    )
    tensorboard: bool = option(False, "Write scalars for TensorBoard as they come.")
    preset: str | None = option(
        None,
        "Settings by name, such as mist/cifar100, as published; flags and YAML override them. By default none, or "
        "embedded/renditions where no data is named.",
    )
    out: str | None = option(None, "Output folder; by default runs/ with date and time.")
    overwrite: bool = option(
        False,
        "Replace the results in an output folder that was used before.",
        needs=("out", lambda options: options.out is not None),
    )

    def __post_init__(self) -> None:
        """Give every option its type, and read a file with a class order, so that nothing depends on it later."""
        if isinstance(self.class_order, list | tuple):  # YAML has numbers as such
            self.class_order = [str(each) if type(each) is int else each for each in self.class_order]
        super().__post_init__()
        if len(self.class_order) == 1:
            (path,) = self.class_order
            if not path:
                raise ValueError("class_order is '', expected a file with all classes, one on each line")
            lines = read_text(path, MOST_ORDER_BYTES).removeprefix("\ufeff").splitlines()
            self.class_order = [line for line in map(str.strip, lines) if line]
            if len(self.class_order) < 2:
                raise ValueError(f"{path} names {len(self.class_order)} classes, expected all, one on each line")

    def check(self) -> None:
        """Raise ValueError for the first name that is unknown or value that is out of range."""
        super().check()
        registry.check_data(self.data)
        if self.preset is not None:
            presets.preset(self.preset)
        for kind, given, known in (
            ("tuner", self.tuner, registry.TUNERS),
            ("method", self.method, registry.METHODS),
        ):
            if not given or len(set(given)) != len(given):
                raise ValueError(f"{kind} is {given}, expected one or more different names of: {', '.join(known)}")
            for name in given:
                if name not in known and "," in name:
                    raise ValueError(f"{kind} is {name!r}, expected names, as --{kind} a b, or in YAML {kind}: [a, b]")
                if name not in known:
                    raise unknown(kind, name, known)
        for name in self.tuner:
            registry.TUNERS.check(name)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0 or max(self.seeds) >= 2**32:
            raise ValueError(f"seeds is {self.seeds}, expected one or more different numbers from 0 to 2^32 - 1")
        if self.class_order and self.class_order_seed is not None:
            raise ValueError(
                f"class_order and class_order_seed ({self.class_order_seed}) both fix the order of the classes; leave "
                "one out, or set it to null"
            )
        seconds(self.checkpoint_every)
        if self.out == "":
            raise ValueError("out is '', expected a folder; leave it out for one below runs/ with date and time")


# What may differ between an interrupted run and the one that goes on from it: results do not depend on it, or it is how
# the run can go on.
FREE_TO_CHANGE = frozenset(
    (
        "data_root",
        "download",
        "skip_broken",
        "workers",
        "image_memory",
        "device",
        "checkpoint_every",
        "tensorboard",
        "out",
        "overwrite",
    )
)


def seconds(duration: str) -> float | None:
    """Return ``30s``, ``5min`` or ``1h`` in seconds; None for ``never``."""
    if duration == "never":
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h)", duration)
    if match is None:
        raise ValueError(f"checkpoint_every is {duration!r}, expected a duration such as 30s, 5min or 1h, or never")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]


def differing(ours: Config, theirs: Config) -> list[str]:
    """Return the options in which two configurations differ and on which results depend, with both values."""
    first, second = dataclasses.asdict(ours), dataclasses.asdict(theirs)
    return [
        f"{name} is {first[name]!r}, was {second[name]!r}"
        for name in first
        if name not in FREE_TO_CHANGE and first[name] != second[name]
    ]


def to_yaml(config: Config) -> str:
    """Write the configuration as ``mist run`` reads it, without the output folder: a copy of it can be run anywhere."""
    import yaml

    values = dataclasses.asdict(config)
    del values["out"], values["overwrite"]
    return yaml.safe_dump(values, sort_keys=False)
