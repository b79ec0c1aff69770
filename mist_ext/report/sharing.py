"""What the methods of a run shared: a tuned backbone for each tuner and seed, and its features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mist_ext.report.comparisons import output_folder
from mist_ext.report.experiments import Experiment
from mist_ext.report.numbers import duration
from mist_ext.results.record import RunRecord
from mist_ext.system.costs import SHARED_EXTRACTION, TUNING_PHASES


@dataclass(frozen=True)
class Shared:
    """A piece of work that was done once for several methods.

    Attributes
    ----------
    done : int
        How often it was done: once for each tuner and seed of a run.
    needed : int
        How often it would have been, had each method done it itself.
    saved : float
        Seconds.
    """

    done: int = 0
    needed: int = 0
    saved: float = 0.0


@dataclass(frozen=True)
class Sharing:
    """What experiments shared.

    Attributes
    ----------
    tuning : Shared
        Of a backbone, for all methods.
    extraction : Shared
        Of its features, for the methods that train nothing.
    """

    tuning: Shared
    extraction: Shared

    def sentence(self) -> str:
        """Return all of it in words; empty where nothing was shared."""
        parts = ((self.tuning, "a backbone was tuned"), (self.extraction, "its features were extracted"))
        said = [
            f"{what} {shared.done} instead of {shared.needed} times ({duration(shared.saved)} saved)"
            for shared, what in parts
            if shared.needed > shared.done
        ]
        return f"Shared by the methods of a run: {', '.join(said)}." if said else ""


def sharing(experiments: Iterable[Experiment]) -> Sharing:
    """Count what experiments of one output folder, data and tuner shared; those of different runs share nothing."""
    seed_runs: dict[Any, list[RunRecord]] = {}
    tuned = set()
    for experiment in experiments:
        for run in experiment.runs:
            folder = output_folder(experiment)
            key = (folder, experiment.data, experiment.backbone, experiment.tuner, run.seed)
            seed_runs.setdefault(key, []).append(run)
            if experiment.tuner != "none":
                tuned.add(key)
    return Sharing(
        _shared([[_seconds(run, TUNING_PHASES) for run in runs] for key, runs in seed_runs.items() if key in tuned]),
        _shared([[_seconds(run, (SHARED_EXTRACTION,)) for run in runs] for runs in seed_runs.values()]),
    )


def _shared(seed_runs: Sequence[Sequence[float | None]]) -> Shared:
    """Count work, from the seconds that each method of a seed recorded for it; None where it took no part."""
    took = [[seconds for seconds in seed_run if seconds is not None] for seed_run in seed_runs]
    took = [seed_run for seed_run in took if seed_run]
    return Shared(len(took), sum(map(len, took)), math.fsum(math.fsum(seed_run) - max(seed_run) for seed_run in took))


def _seconds(run: RunRecord, phases: Sequence[str]) -> float | None:
    spent = [task.seconds.get(phase) for task in run.tasks for phase in phases]
    numbers = [value for value in spent if value is not None]
    return math.fsum(numbers) if numbers else None
