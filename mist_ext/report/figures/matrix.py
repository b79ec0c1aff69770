"""An experiment's accuracy on every task, after each task."""

from __future__ import annotations

import math

from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import (
    NOT_SEEN,
    accuracy_colours,
    colour_range,
    experiment_title,
    labelled_ticks,
    separate_fields,
)

_SMALLEST = 4.5  # points; smaller values are left out and the colours speak


def has_figure(_experiment: Experiment) -> bool:
    """Return True: accuracies are always recorded."""
    return True


def draw(experiment: Experiment) -> Drawing:
    """Draw the accuracy matrix as a heat map with its values, averaged over seeds."""
    matrix = experiment.mean_matrix()
    size = len(matrix)
    side = max(2.4, min(0.62 * size, 9.0))
    figure = new_figure(side + 2.0, side + 1.2)
    axes = figure.add_subplot()
    shown = [row + [math.nan] * (size - len(row)) for row in matrix]
    low, high = colour_range([value for row in matrix for value in row])
    image = axes.imshow(shown, cmap=accuracy_colours(), vmin=low, vmax=high, interpolation="none")
    axes.set_facecolor(NOT_SEEN)
    points = min(9.0, 72 * side / size / 3.2)  # four digits and their margin are about that many letter heights wide
    for after, row in enumerate(matrix if points >= _SMALLEST else []):
        for on, value in enumerate(row):
            # The upper part of this colour map is dark.
            ink = "white" if value > low + 0.6 * (high - low) else "black"
            written = f"{value:.1f}" if value < 99.95 else "100"
            axes.text(on, after, written, ha="center", va="center", color=ink, fontsize=points, in_layout=False)
    separate_fields(axes, size, size, 1.5)
    axes.tick_params(length=0)
    labelled = labelled_ticks(size, 25)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(labelled, [str(task + 1) for task in labelled])
    axes.set_xlabel("evaluated on task" + (" (grey: not yet seen)" if size > 1 else ""))
    axes.set_ylabel("after task")
    axes.set_title(experiment_title(experiment))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="accuracy (%)", fraction=0.046, pad=0.04)
    bar.outline.set_visible(False)
    description = (
        f"Accuracy on each task after each task, {experiment.title}: on task 1, {matrix[0][0]:.2f} % right after it "
        f"and {matrix[-1][0]:.2f} % after task {size}; on task {size}, {matrix[-1][-1]:.2f} %."
    )
    return Drawing("matrix", "Accuracy matrix", description, figure)
