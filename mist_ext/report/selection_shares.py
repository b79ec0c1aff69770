"""Where in the backbone a tuner selected: shares by layer and kind of parameter, for any model's parameter names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics
from mist_ext.results.record import TensorRecord

Position = tuple[str, str]  # in a model: the layer, and the kind of parameter

_NUMBERED_NORM = re.compile(r"(norm|ln)_?\d+")


@dataclass(frozen=True)
class Shares:
    """Shares, averaged over tasks and seeds; a layer and kind that the model does not have together is absent.

    Attributes
    ----------
    layers, kinds : list of str
        In the order of the model.
    overall : float
        Selected entries over all entries of the backbone.
    selected : dict
        The same of each layer and kind.
    score : dict
        Its share of the sum of all scores; empty for a tuner without scores.
    held : dict
        The share of its own score that its selected entries hold; empty for a tuner without scores.
    """

    layers: list[str]
    kinds: list[str]
    overall: float
    selected: dict[Position, float]
    score: dict[Position, float]
    held: dict[Position, float]


def recorded(experiment: Experiment) -> bool:
    """Return whether any task of a counted run selected entries."""
    return any(task.selection for run in experiment.counted for task in run.tasks)


def shares(experiment: Experiment) -> Shares:
    """Return the shares of an experiment whose tasks selected entries, averaged over tasks and seeds."""
    records = [task.selection for run in experiment.counted for task in run.tasks if task.selection]
    positions = positions_by_name([tensor.name for tensor in records[0]])
    summed = [_task_shares(record, positions) for record in records]
    return Shares(
        layers=list(dict.fromkeys(layer for layer, _ in positions.values())),
        kinds=kinds_in_order(positions),
        overall=metrics.mean_std([_overall(record) for record in records]).mean,
        selected=_mean([selected for selected, _, _ in summed]),
        score=_mean([score for _, score, _ in summed]),
        held=_mean([held for _, _, held in summed]),
    )


def positions_by_name(names: Sequence[str]) -> dict[str, Position]:
    """Return the layer and kind of each parameter of a model.

    The layer is the name up to its first number (``blocks.3``); a parameter without one belongs to the ``embedding``
    if it stands before the first numbered one, else to the ``head``. The kind is made of the last two words of the
    rest: ``qkv weight``. Numbers in it are left out, so that the parts of a stage of several blocks are summed, and
    norms are told apart by their layer alone.
    """
    positions: dict[str, Position] = {}
    begun = False
    for name in names:
        words = name.split(".")
        number = next((index for index, word in enumerate(words) if word.isdigit()), None)
        begun = begun or number is not None
        if number is not None:
            layer, rest = ".".join(words[: number + 1]), words[number + 1 :] or [words[number - 1]]
        else:
            layer, rest = "head" if begun else "embedding", words
        kept = [word for word in rest if not word.isdigit()]
        kind = " ".join(_NUMBERED_NORM.sub(r"\1", word) for word in kept[-2:])
        positions[name] = (layer, kind.replace("fc_norm", "norm"))
    return positions


def kinds_in_order(positions: Mapping[str, Position]) -> list[str]:
    """Return all kinds in the order of the model, those of the layer with the most kinds, the blocks', first."""
    layers: dict[str, list[str]] = {}
    for layer, kind in positions.values():
        layers.setdefault(layer, []).append(kind)
    fullest = max(layers.values(), key=lambda kinds: len(set(kinds)))
    return list(dict.fromkeys([*fullest, *(kind for _, kind in positions.values())]))


def _overall(record: Sequence[TensorRecord]) -> float:
    return sum(tensor.selected for tensor in record) / max(1, sum(tensor.entries for tensor in record))


def _task_shares(
    record: Sequence[TensorRecord], positions: Mapping[str, Position]
) -> tuple[dict[Position, float], dict[Position, float], dict[Position, float]]:
    entries: dict[Position, int] = {}
    selected: dict[Position, int] = {}
    score: dict[Position, list[float]] = {}
    held: dict[Position, list[float]] = {}
    for tensor in record:
        position = positions.get(tensor.name)
        if position is None:
            continue
        entries[position] = entries.get(position, 0) + tensor.entries
        selected[position] = selected.get(position, 0) + tensor.selected
        if (share := tensor.score_share) is not None:
            score.setdefault(position, []).append(share)
            held.setdefault(position, []).append(share * (tensor.score_selected or 0.0))
    totals = {position: math.fsum(values) for position, values in score.items()}
    return (
        {position: selected[position] / count for position, count in entries.items() if count},
        totals,
        {position: math.fsum(values) / totals[position] for position, values in held.items() if totals[position]},
    )


def _mean(records: Sequence[Mapping[Position, float]]) -> dict[Position, float]:
    joined: dict[Position, list[float]] = {}
    for record in records:
        for position, value in record.items():
            joined.setdefault(position, []).append(value)
    return {position: metrics.mean_std(values).mean for position, values in joined.items()}
