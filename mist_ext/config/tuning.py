"""How tuners tune: every option with its default, its bounds, its explanation and the tuners that use it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mist_ext.config.contradictions import check_together
from mist_ext.config.option import check_all, option, option_value, unknown_option

SPARSE = ("mist", "random", "magnitude", "gradient")  # the tuners that select entries
ABLATIONS = ("published_random", "published_magnitude", "published_gradient")  # which choose anew in every step
TRAINING = (*SPARSE, *ABLATIONS, "full", "bitfit", "lora")
OWN = ("none", *TRAINING)  # those of this package, of which it is known what they use
UNTRAINED = ("simplecil", "ranpac", "fecam")  # the methods of this package that do not train on images


def _tuned_by(options: Any, *tuners: str) -> bool:
    """Return whether one of these tuners is chosen, or a plug-in, whose options are not known."""
    return any(tuner in tuners or tuner not in OWN for tuner in options.tuner)


def _tunes_with(options: Any, *objectives: str) -> bool:
    """Return whether a chosen tuner trains the layers of an objective: that of tuning, for scoring updates nothing."""
    return _tuned_by(options) or options.tune_objective in objectives


EXCHANGING = (
    "tuner mist, random or magnitude, dynamics exact, and drop gradients",
    lambda options: (
        options.dynamics == "exact"
        and (options.drop == "gradients" or not options.momentum)
        and _tuned_by(options, "mist", "random", "magnitude")
    ),
)


@dataclass
class TuningOptions:
    """How tuners tune; each uses what concerns it. ``mist run --help`` explains every option."""

    epochs: int = option(
        6,
        "Passes over a task's training images; the first one of mist, random, magnitude and gradient belongs to the "
        "selection and updates nothing.",
        group="tuner",
        above=0,
        tuners=TRAINING,
    )
    first_task_epochs: int | None = option(
        None,
        "Passes over the images of the first task, on whose tuning the others build; by default as many as in those.",
        group="tuner",
        above=0,
        tuners=TRAINING,
    )
    batch_size: int = option(
        32,
        "Images a batch; the second view doubles them. The processes of a torchrun share a batch out among them.",
        group="tuner",
        above=0,
        tuners=TRAINING,
    )
    lr: float = option(
        3e-3,
        "Learning rate of the backbone.",
        group="MIST",
        above=0,
        tuners=(*SPARSE, *ABLATIONS),
        role="learning rate",
    )
    full_lr: float = option(
        2e-4, "Learning rate of the backbone.", group="tuner", above=0, tuners=("full",), role="learning rate"
    )
    bitfit_lr: float = option(
        3e-3, "Learning rate of the biases.", group="tuner", above=0, tuners=("bitfit",), role="learning rate"
    )
    lora_lr: float = option(
        3e-3, "Learning rate of the adapters.", group="tuner", above=0, tuners=("lora",), role="learning rate"
    )
    later_lr_factor: float = option(
        1.0,
        "The backbone's learning rate is multiplied by this in all tasks after the first, which then shift earlier "
        "features less.",
        group="tuner",
        above=0,
        tuners=TRAINING,
    )
    projector_lr: float = option(
        1e-2,
        "Learning rate of the projector of the objective mi.",
        group="tuner",
        above=0,
        tuners=TRAINING,
        needs=("tune_objective mi", lambda options: _tunes_with(options, "mi")),
    )
    classifier_lr: float = option(
        1e-2,
        "Learning rate of the classifier of the objectives ce and ce_cosine.",
        group="tuner",
        above=0,
        tuners=TRAINING,
        needs=("tune_objective ce", lambda options: _tunes_with(options, "ce", "ce_cosine")),
    )
    score_objective: Literal["mi", "ce", "ce_cosine"] = option(
        "mi",
        "What is scored by: mi, the mutual information of two views; ce, cross-entropy over the task's classes, by a "
        "linear classifier that is new for each task; ce_cosine, the same by a cosine classifier, on one view.",
        group="MIST",
        tuners=("mist",),
    )
    score_passes: int = option(
        1,
        "Passes over the images in which scoring is done. Each scores a part of the tensors, so that less memory is "
        "taken by scores, which are four bytes a parameter, and by gradients; the same entries are selected.",
        group="MIST",
        above=0,
        at_most=64,
        tuners=("mist",),
    )
    tune_objective: Literal["mi", "ce", "ce_cosine"] = option(
        "mi",
        "What tuning lowers the loss of: mi, ce or ce_cosine, as --score-objective explains them.",
        group="tuner",
        tuners=TRAINING,
    )
    momentum: float = option(0.9, "SGD's momentum.", group="tuner", at_least=0, at_most=1, tuners=TRAINING)
    weight_decay: float = option(
        5e-4,
        "SGD's weight decay; in exact dynamics only kept entries decay.",
        group="tuner",
        at_least=0,
        tuners=TRAINING,
    )
    schedule: Literal["constant", "cosine"] = option(
        "constant",
        "How learning rates go down within a task: cosine, from their full height to 0 at its end.",
        group="tuner",
        tuners=TRAINING,
    )
    rate: float = option(
        0.05,
        "Fraction of each tensor's entries that is selected.",
        group="MIST",
        above=0,
        at_most=1,
        tuners=(*SPARSE, *ABLATIONS),
    )
    keep: float = option(
        0.1,
        "Probability that a selected entry's gradient is kept in a step: 1 - drop rate.",
        group="MIST",
        above=0,
        at_most=1,
        tuners=SPARSE,
    )
    drop: Literal["gradients", "updates"] = option(
        "gradients",
        "What a selected entry that is not kept loses: its gradient, as in MIST; or its update alone, while momentum "
        "takes every gradient: as few weights change, and none of the gradients is lost.",
        group="MIST",
        tuners=("mist", "random", "magnitude"),
        needs=(
            "dynamics exact, and momentum",
            lambda options: options.dynamics == "exact" and options.momentum > 0,
        ),
    )
    dynamics: Literal["exact", "published"] = option(
        "exact",
        "exact: a dropped entry keeps value and momentum. published: the masked gradient goes to torch's dense SGD.",
        group="MIST",
        tuners=SPARSE,
    )
    in_backward: bool | None = option(
        None,
        "Update each block as soon as backward has made its gradients, which are then freed; the bits are the same. "
        "Exact dynamics only; null: where the dynamics allow it.",
        group="MIST",
        tuners=SPARSE,
        needs=("dynamics exact", lambda options: options.dynamics == "exact"),
    )
    weight_gradients: Literal["auto", "sampled", "dense"] = option(
        "auto",
        "sampled: backward computes of a linear layer's weight gradient the entries alone that the step needs, to "
        "within rounding the same. dense: all of them. auto: sampled on a CPU where nothing else needs whole gradients "
        "or asks for in_backward, and linear layers are tuned, else dense.",
        group="MIST",
        tuners=("mist", "random", "magnitude"),
        needs=(
            "tuner mist, random or magnitude, and dynamics exact",
            lambda options: options.dynamics == "exact" and _tuned_by(options, "mist", "random", "magnitude"),
        ),
    )
    whole: str = option(
        "bias|norm",
        "Regular expression: tensors whose name it matches are fully selected; in exact dynamics those of at most one "
        "dimension too.",
        group="MIST",
        pattern=True,
        tuners=SPARSE,
    )
    lora_rank: int = option(4, "Rank of the adapters.", group="tuner", above=0, tuners=("lora",))
    lora_alpha: int = option(
        8,
        "The adapters' product is multiplied by this and divided by the rank.",
        group="tuner",
        above=0,
        tuners=("lora",),
    )
    lora_layers: str = option(
        "qkv",
        "Regular expression: linear layers whose name it matches get an adapter.",
        group="tuner",
        pattern=True,
        tuners=("lora",),
    )
    layers: str = option(
        "",
        "Regular expression: tensors of the backbone whose name it does not match are not tuned, such as attn for "
        "attention only; by default all are. Refused by lora, which has --lora-layers.",
        group="tuner",
        pattern=True,
        tuners=TRAINING,
    )
    strike_factor: float = option(
        0.9,
        "A gradient is multiplied by this for every earlier task that selected its entry.",
        group="MIST",
        above=0,
        at_most=1,
        tuners=("mist", "random", "magnitude"),
    )
    freeze_rate: float = option(
        5e-4,
        "Fraction of each tensor, the highest scores, that is frozen for all later tasks.",
        group="MIST",
        at_least=0,
        at_most=1,
        tuners=("mist",),
    )
    precision: Literal["fp32", "bf16", "bf16-pure"] = option(
        "fp32",
        "bf16: mixed precision while tuning, parameters stay fp32. bf16-pure: the backbone's parameters are bf16, "
        "tuned through compact fp32 masters.",
        group="backbone",
        needs=(
            "a tuner that trains, or bf16-pure",
            lambda options: options.precision == "bf16-pure" or _tuned_by(options, *TRAINING),
        ),
    )
    compile: bool = option(False, "torch.compile for each block of the backbone.", group="backbone")
    exchange: Literal["sparse", "dense"] = option(
        "sparse",
        "What the processes of a torchrun exchange in a step: sparse, the gradients of the entries that it keeps; "
        "dense, whole gradients, by PyTorch's DDP, as tuners without a selection, the tuner gradient, published "
        "dynamics and --drop updates always do.",
        group="several processes",
        needs=EXCHANGING,
    )
    wire: Literal["fp32", "bf16"] = option(
        "fp32", "How a sparse exchange sends a gradient.", group="several processes", needs=EXCHANGING
    )
    shard: bool = option(
        False,
        "Spread the backbone over the processes of a torchrun (FSDP2), where it does not fit on one. For the tuners "
        "mist, random, magnitude and none, and for methods that do not train.",
        group="several processes",
    )
    checkpointing: bool = option(
        False,
        "Compute activations anew in backward instead of keeping them: less memory.",
        group="backbone",
        needs=(
            "a tuner or a method that trains",
            lambda options: _tuned_by(options, *TRAINING) or not set(options.method) <= set(UNTRAINED),
        ),
    )

    def __new__(cls, *_: Any, **given: Any) -> Any:
        """Raise ValueError for an unknown option, with the nearest ones, which dataclasses do not know."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise unknown_option("option", name, known)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Give every option its type, wherever its value comes from; ValueError names the first that has another."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, option_value(type(self), field.name, value, f"{field.name} is"))

    def check(self) -> None:
        """Raise ValueError for the first option that is out of range, or excluded by another."""
        TuningOptions.__post_init__(self)  # for what was assigned
        check_all(self)
        check_together(self)
