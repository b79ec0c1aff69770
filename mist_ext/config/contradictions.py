"""Pairs of options that cannot be given together, and why."""

from __future__ import annotations

from typing import Any, NamedTuple


class Contradiction(NamedTuple):
    """Two values that exclude each other; True stands for any that is not empty.

    ``why`` follows both values in the error, and ``instead`` says what to do.
    """

    name: str
    value: Any
    other: str
    its_value: Any
    why: str
    instead: str

    def holds(self, options: Any) -> bool:
        """Return whether these options contradict each other."""
        pairs = ((self.name, self.value), (self.other, self.its_value))
        return all(
            bool(getattr(options, name)) if value is True else getattr(options, name) == value for name, value in pairs
        )


_OBJECTIVES = ("a task has one classifier", "give both the same, or mi to one of them")
_FSDP = "FSDP2 reduces the gradients of every layer of a backbone that is spread over the processes"
CONTRADICTIONS = (
    Contradiction("score_objective", "ce", "tune_objective", "ce_cosine", *_OBJECTIVES),
    Contradiction("score_objective", "ce_cosine", "tune_objective", "ce", *_OBJECTIVES),
    Contradiction(
        *("precision", "bf16-pure", "dynamics", "published"),
        "a dense optimiser has no fp32 masters, without which its steps are lost in rounding",
        "use precision bf16, or dynamics exact",
    ),
    Contradiction(
        *("shard", True, "dynamics", "published"),
        "the state of torch's dense optimiser is not cut to the processes' parts",
        "leave shard out, or use dynamics exact",
    ),
    Contradiction("layers", True, "shard", True, _FSDP, "leave one of them out"),
    Contradiction(
        *("in_backward", True, "exchange", "dense"),
        "PyTorch's DDP reduces whole gradients, before the step",
        "leave in_backward out, or use exchange sparse",
    ),
    Contradiction(
        *("wire", "bf16", "exchange", "dense"),
        "PyTorch's DDP reduces whole fp32 gradients",
        "leave wire out, or use exchange sparse",
    ),
    Contradiction(
        *("shard", True, "drop", "updates"),
        "the processes would exchange the whole gradients of the objective's own layers, as sharded runs do not",
        "leave shard out, or drop gradients",
    ),
    Contradiction("shard", True, "exchange", "dense", _FSDP, "leave exchange out"),
    Contradiction(
        *("in_backward", True, "weight_gradients", "sampled"),
        "sampled gradients are short, and freed by the step",
        "leave in_backward out, or use weight_gradients dense",
    ),
    Contradiction(
        *("exchange", "dense", "weight_gradients", "sampled"),
        "PyTorch's DDP reduces whole gradients",
        "leave exchange out, or use weight_gradients dense",
    ),
    Contradiction(
        *("shard", True, "weight_gradients", "sampled"),
        "FSDP2 reduces whole gradients",
        "leave shard out, or use weight_gradients dense",
    ),
    Contradiction(
        *("in_backward", True, "dynamics", "published"),
        "these need the gradients of the whole model at once",
        "leave in_backward out, or use dynamics exact",
    ),
)


def check_together(options: Any) -> None:
    """Raise ValueError for the first two options that exclude each other."""
    for each in CONTRADICTIONS:
        if each.holds(options):
            raise ValueError(
                f"{each.name} is {getattr(options, each.name)!r}, but {each.other} is "
                f"{getattr(options, each.other)!r}: {each.why}; {each.instead}"
            )
