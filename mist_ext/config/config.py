"""The configuration of a run: every option with its default and its explanation. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from mist_ext import registry
from mist_ext.config import presets
from mist_ext.config.option import option, option_value
from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

IN_BACKWARD = (
    "Update each block as soon as backward has made its gradients, which are then freed; the bits are the same. Exact "
    "dynamics only; null: where the dynamics allow it."
)


@dataclass
class TuningOptions:
    """How tuners tune; each uses what concerns it. ``mist run --help`` explains every option."""

    epochs: int = option(
        6, "Passes over a task's training images. MIST's first one scores and updates nothing.", group="tuner"
    )
    batch_size: int = option(
        32,
        "Images a batch; the second view doubles them. The processes of a torchrun share a batch out among them.",
        group="tuner",
    )
    lr: float = option(
        3e-3, "Learning rate of the backbone for the sparse tuners: mist, random, magnitude, gradient.", group="MIST"
    )
    full_lr: float = option(2e-4, "Learning rate of the backbone for the tuner full.", group="tuner")
    bitfit_lr: float = option(3e-3, "Learning rate of the biases for the tuner bitfit.", group="tuner")
    lora_lr: float = option(3e-3, "Learning rate of the adapters for the tuner lora.", group="tuner")
    projector_lr: float = option(1e-2, "Learning rate of the objective's projector.", group="tuner")
    classifier_lr: float = option(1e-2, "Learning rate of cross-entropy's classifier.", group="tuner")
    score_objective: Literal["mi", "ce"] = option(
        "mi",
        "What mist scores by: mi, the mutual information of two views; ce, cross-entropy over the task's classes, by a "
        "linear classifier that is new for each task.",
        group="MIST",
    )
    tune_objective: Literal["mi", "ce"] = option(
        "mi", "What every tuner that trains tunes by: mi or ce, as score_objective has them.", group="tuner"
    )
    momentum: float = option(0.9, "SGD's momentum.", group="tuner")
    weight_decay: float = option(5e-4, "SGD's weight decay; in exact dynamics only kept entries decay.", group="tuner")
    rate: float = option(0.05, "Fraction of each tensor's entries that is selected.", group="MIST")
    keep: float = option(
        0.1, "Probability that a selected entry's gradient is kept in a step: 1 - drop rate.", group="MIST"
    )
    dynamics: Literal["exact", "published"] = option(
        "exact",
        "exact: a dropped entry keeps value and momentum. published: the masked gradient goes to torch's dense SGD.",
        group="MIST",
    )
    in_backward: bool | None = option(False, IN_BACKWARD, group="MIST")
    whole: str = option(
        "bias|norm",
        "Regular expression: tensors whose name it matches are selected whole, as are those of at most one dimension.",
        group="MIST",
    )
    lora_rank: int = option(4, "Rank of the adapters of the tuner lora.", group="tuner")
    lora_alpha: int = option(8, "The adapters' product is multiplied by this and divided by the rank.", group="tuner")
    lora_layers: str = option(
        "qkv", "Regular expression: linear layers whose name it matches get an adapter.", group="tuner"
    )
    layers: str = option(
        "",
        "Regular expression: tensors of the backbone whose name it does not match are not tuned, such as attn for "
        "attention only; by default all are. For every tuner that trains but lora, which has lora_layers.",
        group="tuner",
    )
    strike_factor: float = option(
        0.9,
        "A gradient is multiplied by this for every earlier task that selected its entry.",
        group="MIST",
    )
    freeze_rate: float = option(
        5e-4,
        "Fraction of each tensor, the highest scores, that is frozen for all later tasks.",
        group="MIST",
    )
    precision: Literal["fp32", "bf16", "bf16-pure"] = option(
        "fp32",
        "bf16: mixed precision while tuning, parameters stay fp32. bf16-pure: the backbone's parameters are bf16, "
        "tuned through compact fp32 masters.",
        group="backbone",
    )
    compile: bool = option(False, "torch.compile for each block of the backbone.", group="backbone")
    exchange: Literal["sparse", "dense"] = option(
        "sparse",
        "What the processes of a torchrun exchange in a step: sparse, the gradients of the entries that it keeps; "
        "dense, whole gradients, by PyTorch's DDP, as tuners without a selection, the tuner gradient and published "
        "dynamics always do.",
        group="several processes",
    )
    wire: Literal["fp32", "bf16"] = option("fp32", "How a sparse exchange sends a gradient.", group="several processes")
    shard: bool = option(
        False,
        "Spread the backbone over the processes of a torchrun (FSDP2), where it does not fit on one. For the tuners "
        "mist, random, magnitude and none, and for methods that do not train.",
        group="several processes",
    )
    checkpointing: bool = option(
        False, "Compute activations anew in backward instead of keeping them: less memory.", group="backbone"
    )

    def __post_init__(self) -> None:
        """Give every option its type, wherever its value comes from; ValueError names the first that has another."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, option_value(type(self), field.name, value, f"{field.name} is"))

    def check(self) -> None:
        """Raise ValueError for the first option that is out of range."""
        TuningOptions.__post_init__(self)  # for what was assigned
        rates = ("lr", "full_lr", "bitfit_lr", "lora_lr", "projector_lr", "classifier_lr", "rate", "keep")
        for name in ("epochs", "batch_size", *rates, "lora_rank", "lora_alpha", "strike_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("momentum", "weight_decay", "freeze_rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("rate", "keep", "strike_factor", "freeze_rate", "momentum"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at most 1")
        for name in ("whole", "layers", "lora_layers"):
            try:
                re.compile(getattr(self, name))
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(
                    f"{name} is {quoted(getattr(self, name))}, which is no regular expression: {error}"
                ) from None
        if self.precision == "bf16-pure" and self.dynamics == "published":
            raise ValueError(
                "precision is bf16-pure, but published dynamics have a dense optimiser without fp32 masters, whose "
                "steps would be lost in rounding; use precision bf16, or dynamics exact"
            )
        if self.shard and self.dynamics == "published":
            raise ValueError(
                "shard is True, but published dynamics have torch's dense optimiser, whose state is not cut to the "
                "processes' parts; leave shard out, or use dynamics exact"
            )
        if self.shard and self.layers:
            raise ValueError(
                f"layers is {self.layers!r}, but shard is True: FSDP2 reduces the gradients of every layer of a "
                "backbone that is spread over the processes; leave one of them out"
            )
        if self.exchange == "dense":
            for name, ignored in (("in_backward", self.in_backward is True), ("wire", self.wire != "fp32")):
                if ignored:
                    raise ValueError(
                        f"{name} is {getattr(self, name)!r}, but exchange is 'dense': PyTorch's DDP reduces whole fp32 "
                        f"gradients, before the step; leave {name} out, or use exchange sparse"
                    )
        if self.shard and self.exchange == "dense":
            raise ValueError(
                "shard is True, but exchange is 'dense': FSDP2 itself reduces the gradients of a backbone that is "
                "spread over the processes; leave exchange out"
            )
        if self.in_backward and self.dynamics == "published":
            raise ValueError(
                "in_backward is True, but published dynamics need the gradients of the whole model at once; "
                "leave it out, or use dynamics exact"
            )


@dataclass
class Config(TuningOptions):
    """Everything that a run depends on; the same fields serve flags, YAML and Python."""

    in_backward: bool | None = option(None, IN_BACKWARD, group="MIST")
    data: str = option(
        "digits",
        "Data set: digits, glyphs; or below --data-root: cifar100, imagenet_r, imagenet_a, cub200, cars196; or "
        "folder:PATH, a tree of class folders with train and test (or val), or one tree of class folders; its "
        "images are turned as EXIF says and put on white, which published pipelines do not do.",
        group="data",
    )
    data_root: str | None = option(
        None, "Folder below which data sets are looked for; by default $MIST_DATA or data/.", group="data"
    )
    download: bool = option(False, "Fetch the data set to --data-root where it has a public address.", group="data")
    test_fraction: float = option(
        0.2, "Share of every class that is held out for testing in a tree without a split.", group="data"
    )
    classes_per_task: int | None = option(
        None, "New classes a task; by default the data set's own split.", group="data"
    )
    evaluate_on: Literal["test", "validation"] = option(
        "test",
        "validation: a quarter of the training images is held out for it, and the test images are not read.",
        group="data",
    )
    normalize: Literal["auto", "published", "model"] = option(
        "auto",
        "published: channels as the data set's published protocol has them. model: as the backbone was pre-trained. "
        "auto: published where there is such a protocol (embedded data with the embedded backbone too), else model.",
        group="data",
    )
    skip_broken: bool = option(
        False, "Do without images that cannot be decoded, instead of stopping before the task.", group="data"
    )
    workers: int | None = option(
        None,
        "Processes that decode images; by default none for images in memory, else up to 8 cores.",
        group="data",
    )
    image_memory: float = option(4.0, "Decoded images are kept in at most this many GB.", group="data")
    backbone: str = option(
        "vit_nano", "vit_nano, or the name of any timm model that gives a feature vector.", group="backbone"
    )
    weights: str = option(
        "pretrained", "pretrained, none, or a local .safetensors, .npz or .pth file.", group="backbone", null="none"
    )
    tuner: list[str] = option(
        ["none", "mist"], f"How the backbone is adapted: {', '.join(registry.TUNERS)}.", group="tuner"
    )
    method: list[str] = option(
        ["simplecil", "ranpac"],
        "The freeze-based methods that follow: " + ", ".join(registry.METHODS) + ".",
        group="method",
    )
    method_options: list[str] = option(
        [],
        "NAME=VALUE for every method that has the option, such as epochs=5, or METHOD.NAME=VALUE for one, such as "
        "l2p.length=3; by default what was published.",
        group="method",
    )
    ranpac_width: int = option(
        2000, "Random features of ranpac and ranpac_*; 10000 is published for a ViT-B/16.", group="method"
    )
    seeds: list[int] = option([1993, 1994, 1995], "One run each: the class order and every draw follow from it.")
    class_order_seed: int | None = option(None, "Fixes the class order over all seeds; the field uses 1993.")
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
    tensorboard: bool = option(False, "Write scalars for TensorBoard as they come.")
    preset: str | None = option(
        None, "Settings by name, such as mist/cifar100, as published; flags and YAML override them."
    )
    out: str | None = option(None, "Output folder; by default runs/ with date and time.")
    overwrite: bool = option(False, "Replace the results in an output folder that was used before.")

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
        if self.class_order_seed is not None and not 0 <= self.class_order_seed < 2**32:
            raise ValueError(f"class_order_seed is {self.class_order_seed}, expected a number from 0 to 2^32 - 1")
        if self.ranpac_width < 1:
            raise ValueError(f"ranpac_width is {self.ranpac_width}, expected at least 1 random feature")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction is {self.test_fraction}, expected a share between 0 and 1")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}, expected 0 or more processes")
        if not 0 <= self.image_memory <= 1e9:
            raise ValueError(f"image_memory is {self.image_memory} GB, expected 0 to 1e9")
        seconds(self.checkpoint_every)


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
    """``30s``, ``5min`` or ``1h`` in seconds; None for ``never``."""
    if duration == "never":
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h)", duration)
    if match is None:
        raise ValueError(f"checkpoint_every is {duration!r}, expected a duration such as 30s, 5min or 1h, or never")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]


def differing(ours: Config, theirs: Config) -> list[str]:
    """The options that results depend on and that two configurations do not share, with both values."""
    first, second = dataclasses.asdict(ours), dataclasses.asdict(theirs)
    return [
        f"{name} is {first[name]!r}, was {second[name]!r}"
        for name in first
        if name not in FREE_TO_CHANGE and first[name] != second[name]
    ]


def to_yaml(config: Config) -> str:
    """The configuration as ``mist run`` reads it; it names no output folder, so a copy of it can be run anywhere."""
    import yaml

    values = dataclasses.asdict(config)
    del values["out"], values["overwrite"]
    return yaml.safe_dump(values, sort_keys=False)


def from_yaml(text: str) -> dict[str, Any]:
    """The options that `to_yaml` wrote."""
    import yaml

    return dict(yaml.safe_load(text))
