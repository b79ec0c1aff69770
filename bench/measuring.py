"""Runs one contest: verify, warm up, measure memory, time all in turns; and makes the result rows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from contests.contest import ADD, PUBLISHED, Call, Contest
from memory import available, give_back, peak_extra_bytes
from others import Others
from timing import Stopwatch

ROW = (
    "op", "model", "dtype", "device", "threads", "ms", "bytes", "gb_per_s", "flops", "tokens", "share_of_stream",
    "x_eager", "x_best_torch", "best_torch", "parameters", "tensors", "peak_extra_bytes", "variants",
    "variants_peak_extra_bytes", "skipped", "others_cores",
)  # fmt: skip


@dataclass
class Measured:
    """A contest's figures, by the contestants' names.

    Attributes
    ----------
    ours : list of str
    ms : dict of str to float
        Medians, `ADD` included.
    peak : dict of str to int or None
    skipped : dict of str to str
        Why a rival did not take part.
    others_cores : float or None
        How many cores other programs used meanwhile.
    """

    ours: list[str]
    moved: int
    add_bytes: int
    ms: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    others_cores: float | None = None


def measure(contest: Contest, stopwatch: Stopwatch, rounds: int, without: Mapping[str, str]) -> Measured:
    """Time ours, every rival that can take part, and ``a.add_(b)``.

    Parameters
    ----------
    contest : Contest
        Verified before.
    stopwatch : Stopwatch
    rounds : int
    without : mapping of str to str
        Rivals to leave out, and why.
    """
    problem = contest.problem
    ours = contest.ours()
    add, add_bytes = contest.add()
    measured = Measured(list(ours), contest.moved(), add_bytes, skipped=dict(without))
    calls: dict[str, Call] = {**ours, ADD: add}
    for name, call in calls.items():
        warm_up(name, call, measured, problem.device)
    for name, rival in contest.rivals.items():
        if name in without:
            continue
        if rival.needs(problem) > available(problem.device):
            measured.skipped[name] = f"it needs {rival.needs(problem) / 1e9:.1f} GB more than there is"
        else:
            try:
                calls[name] = rival(problem)
                warm_up(name, calls[name], measured, problem.device)
            except RuntimeError as error:  # a size that torch refuses, no compiler, out of memory
                calls.pop(name, None)
                measured.skipped[name] = reason(error)
    with Others() as others:
        measured.ms = stopwatch.in_turns(calls, rounds)
    measured.others_cores = others.cores
    calls.clear()
    give_back()
    return measured


def warm_up(name: str, call: Call, measured: Measured, device: torch.device) -> None:
    """Call twice: the first makes lazy state, of the second the memory is measured."""
    call()
    measured.peak[name] = peak_extra_bytes(call, device)


def reason(error: Exception) -> str:
    """An error's first line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def rows(contest: Contest, measured: Measured, model: str, dtype: str, threads: int | None) -> list[dict[str, Any]]:
    """The results, one for each of ours."""
    problem, ms = contest.problem, measured.ms
    stream = measured.add_bytes / ms[ADD]
    fair = {name: ms[name] for name, rival in contest.rivals.items() if name in ms and rival.same_work}
    best = min(fair, key=fair.__getitem__, default=None)
    made = []
    for op in measured.ours:
        rate = measured.moved / ms[op]
        made.append(
            {
                "op": op,
                "model": model,
                "dtype": dtype,
                "device": problem.device.type,
                "threads": threads,
                "ms": round(ms[op], 4),
                "bytes": measured.moved,
                "gb_per_s": round(rate / 1e6, 3),
                "flops": contest.flops(),
                "tokens": problem.tokens if contest.flops() else None,
                "share_of_stream": round(rate / stream, 4),
                "x_eager": round(ms[PUBLISHED] / ms[op], 2) if PUBLISHED in ms else None,
                "x_best_torch": round(fair[best] / ms[op], 2) if best else None,
                "best_torch": best,
                "parameters": problem.parameters,
                "tensors": len(problem.shapes),
                "peak_extra_bytes": measured.peak[op],
                "variants": {name: round(value, 4) for name, value in ms.items()},
                "variants_peak_extra_bytes": measured.peak,
                "skipped": measured.skipped,
                "others_cores": measured.others_cores,
            }
        )
    return made
