"""The selected entries of a tensor: their number, the highest scores, and checks of indices and ordinals."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mist_ext.distributed.selection_shard import SelectionShard, local_selection
from mist_ext.distributed.shard import is_sharded
from mist_ext.kernels import ops
from mist_ext.parameters import with_names

NEVER = -math.inf
"""The score of an entry that is not selected, whatever the rate."""


def selected_count(n: int, rate: float) -> int:
    """Return how many of ``n`` entries a rate selects: n - ceil((n - 1) (1 - rate)), at least one if there is one.

    That is what ``score >= quantile(score, 1 - rate)`` selects where no two scores are equal.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}, expected a fraction above 0 and up to 1")
    # 1 - 0.95 is not quite 0.05: rounding first keeps a whole product whole.
    return n - math.ceil(round((n - 1) * (1 - rate), 6)) if n else 0


def highest(scores: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Return the positions of the highest scores of each tensor, those of `NEVER` left out: int32, ascending."""
    names = list(scores)
    dense = [score.contiguous() for score in scores.values()]
    try:
        index = ops.select(dense, [selected_count(score.numel(), rate) for score in dense])
    except RuntimeError as error:
        raise ValueError(with_names(error, names)) from error
    allowed = [entries[score.view(-1)[entries.long()] != NEVER] for score, entries in zip(dense, index, strict=True)]
    return dict(zip(names, allowed, strict=True))


def select(
    scores: Mapping[str, Tensor], rate: float, expression: re.Pattern[str] | None, vectors: bool
) -> tuple[dict[str, Tensor | None], dict[str, tuple[int, ...]], dict[str, SelectionShard]]:
    """Select the highest scores of each tensor that is not fully selected, or this rank's part of them.

    Returns index, shape and shards of the `Selection`. A sharded tensor is gathered, one at a time.
    """
    sparse = [name for name, score in scores.items() if not is_fully_selected(name, score, expression, vectors)]
    index: dict[str, Tensor | None] = dict.fromkeys(scores)
    index.update(highest({name: scores[name] for name in sparse if not is_sharded(scores[name])}, rate))
    shape = {name: tuple(score.shape) for name, score in scores.items()}
    shards = {}
    filled = [name for name in sparse if scores[name].numel()]
    zero = [name for name in filled if not is_sharded(scores[name]) and _is_zero(scores[name])]
    for name, score in scores.items():
        if is_sharded(score):
            if name in sparse:
                gathered = score.full_tensor()  # type: ignore[attr-defined]
                zero += [name] if _is_zero(gathered) else []
                index.update(highest({name: gathered}, rate))
            index[name], shape[name], shards[name] = local_selection(name, index[name], score)
    warn_of_zero_scores(zero, len(filled))
    return index, shape, shards


def _is_zero(score: Tensor) -> bool:
    """Return whether all scores are 0 among those that may be selected, if any may."""
    allowed = score[score != NEVER]
    return bool(allowed.numel()) and not allowed.any()


def is_fully_selected(
    name: str, tensor: Tensor, expression: re.Pattern[str] | str | None, vectors: bool = True
) -> bool:
    """Return whether `Selection.from_scores` selects a tensor fully."""
    return (vectors and tensor.ndim <= 1) or (expression is not None and re.search(expression, name) is not None)


def same_index(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two indices are equal, on whatever devices."""
    if one is None or other is None:
        return one is other
    return torch.equal(one, other.to(one.device))


def checked_index(name: str, index: Tensor | None, numel: int) -> Tensor | None:
    """Return a tensor's index as int32; ValueError with its name unless it is ascending and within the tensor."""
    if index is None:
        return None
    if index.ndim != 1 or index.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"the index of {name!r} is {index.dtype} {list(index.shape)}, expected int32 with one dimension"
        )
    if index.numel():
        low, high = index[0].item(), index[-1].item()
        if not (index[1:] > index[:-1]).all():
            raise ValueError(f"the index of {name!r} is not strictly ascending; sort it and drop repeated positions")
        if low < 0 or high >= numel:
            outside = low if low < 0 else high
            raise ValueError(f"the index of {name!r} holds {outside}, expected positions from 0 to {numel - 1}")
    return index.to(torch.int32)


def check_ordinals(ordinal: Mapping[str, int]) -> None:
    """Raise ValueError unless every tensor has a number of its own that the keep rule can draw by."""
    first: dict[int, str] = {}
    for name, number in ordinal.items():
        if not isinstance(number, int) or not 0 <= number < 2**32:
            raise ValueError(f"the ordinal of {name!r} is {number!r}, expected a number from 0 to 2^32 - 1")
        if (other := first.setdefault(number, name)) != name:
            raise ValueError(f"{other!r} and {name!r} have the ordinal {number}; each tensor needs one of its own")


def check_state(state: Any) -> None:
    """Raise ValueError unless this has the keys and types of what `Selection.state_dict` returns."""
    told = "this is not the state of a selection"
    if not isinstance(state, Mapping):
        raise ValueError(f"{told}, but a {type(state).__name__}")
    for key, kind in {"names": list, "shapes": list, "ordinals": list, "index": dict}.items():
        if not isinstance(state.get(key), kind):
            has = f"{key!r} is a {type(state[key]).__name__}" if key in state else f"it has no {key!r}"
            raise ValueError(f"{told}: {has}")
    if not len(state["names"]) == len(state["shapes"]) == len(state["ordinals"]):
        raise ValueError(f"{told}: names, shapes and ordinals are not as many")


def warn_of_zero_scores(zero: list[str], count: int) -> None:
    """Warn of tensors whose scores are all 0; raise ValueError where those are all the ``count`` tensors."""
    if zero and len(zero) == count:
        raise ValueError(
            "all scores are 0, so none is the highest; to score by Sensitivity, call backward() while it is "
            "entered, from a loss that depends on the parameters"
        )
    if zero:
        more = f" and {len(zero) - 1} more" if len(zero) > 1 else ""
        warnings.warn(
            f"all scores of {zero[0]!r}{more} are 0, so their first entries are selected; leave out what no loss "
            "depends on",
            stacklevel=4,
        )
