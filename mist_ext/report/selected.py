"""Where in the backbone a tuner selected: shares by layer and kind of parameter, for any model's parameter names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics
from mist_ext.results.record import TensorRecord

Place = tuple[str, str]  # layer, kind

_NUMBERED_NORM = re.compile(r"(norm|ln)_?\d+")


@dataclass(frozen=True)
class Shares:
    """Averaged over tasks and seeds; a layer and kind that the model does not have together is absent.

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
    selected: dict[Place, float]
    score: dict[Place, float]
    held: dict[Place, float]


def recorded(experiment: Experiment) -> bool:
    """Whether any task of a counted run recorded what was selected."""
    return any(task.selection for run in experiment.counted for task in run.tasks)


def shares(experiment: Experiment) -> Shares:
    """The shares of an experiment whose tasks recorded their selection."""
    records = [task.selection for run in experiment.counted for task in run.tasks if task.selection]
    places = named_places([tensor.name for tensor in records[0]])
    summed = [_task_shares(record, places) for record in records]
    return Shares(
        layers=list(dict.fromkeys(layer for layer, _ in places.values())),
        kinds=_in_order(places),
        overall=metrics.mean_std([_overall(record) for record in records])[0],
        selected=_mean([selected for selected, _, _ in summed]),
        score=_mean([score for _, score, _ in summed]),
        held=_mean([held for _, _, held in summed]),
    )


def named_places(names: Sequence[str]) -> dict[str, Place]:
    """The layer and kind of each parameter of a model.

    The layer is the name up to its first number (``blocks.3``); a parameter without one belongs to the ``embedding``
    if it stands before the first numbered one, else to the ``head``. The kind is made of the last two words of the
    rest: ``qkv weight``. Numbers in it are left out, so that the parts of a stage of several blocks are summed, and
    norms are told apart by their layer alone.
    """
    places: dict[str, Place] = {}
    begun = False
    for name in names:
        words = name.split(".")
        number = next((place for place, word in enumerate(words) if word.isdigit()), None)
        begun = begun or number is not None
        if number is not None:
            layer, rest = ".".join(words[: number + 1]), words[number + 1 :] or [words[number - 1]]
        else:
            layer, rest = "head" if begun else "embedding", words
        kept = [word for word in rest if not word.isdigit()]
        kind = " ".join(_NUMBERED_NORM.sub(r"\1", word) for word in kept[-2:])
        places[name] = (layer, kind.replace("fc_norm", "norm"))
    return places


def _in_order(places: Mapping[str, Place]) -> list[str]:
    """All kinds, in the order of the model, but those of the layer with the most kinds first: they are the blocks'."""
    layers: dict[str, list[str]] = {}
    for layer, kind in places.values():
        layers.setdefault(layer, []).append(kind)
    fullest = max(layers.values(), key=lambda kinds: len(set(kinds)))
    return list(dict.fromkeys([*fullest, *(kind for _, kind in places.values())]))


def _overall(record: Sequence[TensorRecord]) -> float:
    return sum(tensor.selected for tensor in record) / max(1, sum(tensor.entries for tensor in record))


def _task_shares(
    record: Sequence[TensorRecord], places: Mapping[str, Place]
) -> tuple[dict[Place, float], dict[Place, float], dict[Place, float]]:
    entries: dict[Place, int] = {}
    selected: dict[Place, int] = {}
    score: dict[Place, list[float]] = {}
    held: dict[Place, list[float]] = {}
    for tensor in record:
        place = places.get(tensor.name)
        if place is None:
            continue
        entries[place] = entries.get(place, 0) + tensor.entries
        selected[place] = selected.get(place, 0) + tensor.selected
        if (share := tensor.score_share) is not None:
            score.setdefault(place, []).append(share)
            held.setdefault(place, []).append(share * (tensor.score_selected or 0.0))
    totals = {place: math.fsum(values) for place, values in score.items()}
    return (
        {place: selected[place] / count for place, count in entries.items() if count},
        totals,
        {place: math.fsum(values) / totals[place] for place, values in held.items() if totals[place]},
    )


def _mean(records: Sequence[Mapping[Place, float]]) -> dict[Place, float]:
    joined: dict[Place, list[float]] = {}
    for record in records:
        for place, value in record.items():
            joined.setdefault(place, []).append(value)
    return {place: metrics.mean_std(values)[0] for place, values in joined.items()}
