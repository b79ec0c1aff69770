"""Measure which bits of the backbone a step changes, on sampled steps, since the copy doubles the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from mist_ext.distributed.gradients import add_up_
from mist_ext.distributed.shard import local
from mist_ext.kernels import ops
from mist_ext.results.record import TensorRecord
from mist_ext.selection import Selection
from mist_ext.tuners.tuner import Tuned

BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def measure_step(
    values: Callable[[], Mapping[str, Tensor]],
    sizes: Mapping[str, int],
    by_score: Iterable[str],
    step: Callable[[], None],
    tuned: Tuned,
    sharded: bool = False,
) -> None:
    """Take a step and add the fraction of entries whose bits differ afterwards to ``tuned``.

    Parameters
    ----------
    values : callable
        Gives what a step changes, by name: parameters, or the float32 masters of 16-bit ones.
    sizes : mapping of str to int
        Each parameter's number of entries.
    by_score : iterable of str
        The tensors that are selected by score.
    step : callable
    tuned : Tuned
    sharded : bool
        Whether the values are this rank's part of them.
    """
    before = {name: value.detach().clone() for name, value in values().items()}
    step()
    differing = {name: differing_entries(before[name], value) for name, value in values().items()}
    if sharded:
        counts = torch.tensor(list(differing.values()))
        add_up_([counts])
        differing = dict(zip(differing, counts.tolist(), strict=True))
    scored = list(by_score)
    if scored:
        tuned.changed.append(sum(differing[name] for name in scored) / sum(sizes[name] for name in scored))
    tuned.changed_all.append(sum(differing.values()) / sum(sizes.values()))


def differing_entries(before: Tensor, after: Tensor) -> int:
    """Count the entries whose bits differ between two tensors of one type and shape."""
    bits = BITS[after.dtype]
    return int((after.view(bits) != before.view(bits)).sum())


def tensor_records(
    selection: Selection, backbone: nn.Module, sums: Mapping[str, tuple[float, float]] | None = None
) -> list[TensorRecord]:
    """Return what was selected in each tensor of the backbone, as `Tuned.selection` holds it.

    ``sums`` are those of `score_sums`, where something was scored.
    """
    names = [name for name, _ in backbone.named_parameters() if name in selection]
    total = sum(sums[name][0] for name in names) if sums else 0
    records = []
    for name in names:
        record = TensorRecord(name, selection.total_numels[name], selection.total_count(name))
        if sums and total:
            every, chosen = sums[name]
            record.score_share = every / total
            record.score_selected = chosen / every if every else None
        records.append(record)
    return records


def score_sums(selection: Selection, scores: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Return the sum of all scores of each tensor, and of those of its selected entries."""
    sums = torch.zeros(len(selection), 2, dtype=torch.float64)
    for row, (name, index) in zip(sums, selection.items(), strict=True):
        own = local(scores[name]).flatten()
        row[0] = own.clamp(min=0).sum(dtype=torch.float64)
        row[1] = (own if index is None else own[index.long()]).sum(dtype=torch.float64)
    if selection.shards:
        add_up_([sums])
    return dict(zip(selection, map(tuple, sums.tolist()), strict=True))


def kept_fraction(selection: Selection, keep: float, seed: int, step: int) -> float:
    """Return entries that keep their gradient in a step over all entries of the tensors selected by score."""
    threshold = ops.keep_threshold(keep)
    kept = sum(
        int(ops.keep_mask(seed, selection.ordinal[name], step, selection.total_count(name), threshold).sum())
        for name in selection.by_score
    )
    total = sum(selection.total_numels[name] for name in selection.by_score)
    return kept / total if total else 0.0
