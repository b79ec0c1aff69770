"""All figures of a report, one kind per file. matplotlib is imported when one is drawn."""

from __future__ import annotations

from dataclasses import replace

from mist_ext.report import digests
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures import accuracy, classes, costs, deltas, layers, matrix
from mist_ext.report.figures.comparison import comparison
from mist_ext.report.figures.drawing import Drawing

__all__ = ["Drawing", "comparison", "experiment_drawings", "figure_names"]

_KINDS = {
    "accuracy": accuracy,
    "matrix": matrix,
    "forgetting": classes,
    "selection": layers,
    "deltas": deltas,
    "costs": costs,
}


def figure_names(experiment: Experiment) -> list[str]:
    """Return the names of an experiment's figures; those whose numbers were not recorded are left out."""
    return [name for name, kind in _KINDS.items() if experiment.tasks and kind.has_figure(experiment)]


def experiment_drawings(experiment: Experiment) -> list[Drawing]:
    """Draw the figures of an experiment."""
    digest = digests.of_experiment(experiment)
    return [replace(_KINDS[name].draw(experiment), digest=digest) for name in figure_names(experiment)]
