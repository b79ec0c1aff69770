"""The files of what a run's tasks changed, which lie beside its results."""

from __future__ import annotations

from pathlib import Path

from mist_ext.report.experiments import Experiment


def delta_files(experiment: Experiment) -> list[Path]:
    """Return the files beside an experiment's results that hold its tasks' deltas: those of its first seed with any."""
    folder = Path(experiment.source).parent
    for seed in experiment.seeds:
        if found := sorted(folder.glob(f"delta-seed{seed}-task*.safetensors")):
            return found
    return []
