"""The files of what a run's tasks changed, which lie beside its results."""

from __future__ import annotations

from pathlib import Path

from mist_ext.report.experiments import Experiment
from mist_ext.results import delta_names


def delta_files(experiment: Experiment) -> dict[int, dict[int, Path]]:
    """Return the files beside an experiment's results that hold its tasks' deltas, by seed and task, in its order."""
    found = delta_names.of_seeds(Path(experiment.source).parent)
    return {seed: found[seed] for seed in experiment.seeds if seed in found}


def first_seed(experiment: Experiment) -> dict[int, Path]:
    """Return the files of the first seed that has any, by task, which are shown for all."""
    return next(iter(delta_files(experiment).values()), {})
