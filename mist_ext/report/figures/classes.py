"""How an experiment's accuracy on single classes went down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import (
    NOT_SEEN,
    accuracy_colours,
    colour_range,
    experiment_colour,
    experiment_title,
    labelled_ticks,
    plain,
)
from mist_ext.report.numbers import plural
from mist_ext.report.per_class import ClassMatrix, class_matrix, forgetting_by_class, recorded
from mist_ext.results import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELLED = 60  # classes; where there are more, only some positions and the most forgotten classes carry a label
_WORST = 5
_WIDEST = 12  # tasks; of more, only some carry a number


def has_figure(experiment: Experiment) -> bool:
    """Return whether accuracies per class were recorded, over more than one task."""
    return recorded(experiment) and experiment.tasks > 1


def draw(experiment: Experiment) -> Drawing:
    """Draw every class's accuracy after every task, and beside it what each class lost."""
    matrix, lost = class_matrix(experiment), forgetting_by_class(experiment)
    means = {label: metrics.mean_std(values).mean for label, values in lost.items()}
    ranking = sorted(means, key=lambda label: -means[label])
    figure = new_figure(9.0, min(1.4 + 0.2 * len(matrix.rows), 8.0))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    image = _heat_map(left, matrix, experiment)
    bar = figure.colorbar(image, ax=left, label="accuracy (%)", fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    _bars(right, ranking, means, lost, experiment)
    figure.suptitle(experiment_title(experiment))
    overall = metrics.mean_std(list(means.values()))[0]
    named = ", ".join(f"class {experiment.class_name(label)} {means[label]:.1f}" for label in ranking[:3])
    found = f"{overall:.1f} points on average; most: {named} points."
    description = f"Forgetting of {len(means)} classes, {experiment.title}: {found}"
    return Drawing("forgetting", "Forgetting per class", description, figure)


def _heat_map(axes: Axes, matrix: ClassMatrix, experiment: Experiment) -> Any:
    tasks = experiment.tasks
    shown = [[math.nan] * (tasks - len(row)) + row for row in matrix.rows]
    count = len(shown)
    # Without interpolation the picture inside an SVG has one pixel for each value, and stays sharp.
    low, high = colour_range([value for row in matrix.rows for value in row])
    image = axes.imshow(shown, cmap=accuracy_colours(), vmin=low, vmax=high, aspect="auto", interpolation="none")
    axes.set_facecolor(NOT_SEEN)
    labelled = labelled_ticks(tasks, _WIDEST)
    axes.set_xticks(labelled, [str(task + 1) for task in labelled])
    axes.set_xlabel("after task (grey: not yet seen)")
    if count <= _LABELLED:
        axes.set_yticks(range(count), _names(experiment, matrix.classes), fontsize=min(8, 400 / count))
        axes.set_ylabel("class, in the order of the stream")
    else:
        numbered = labelled_ticks(count, 10)
        axes.set_yticks(numbered, [str(position + 1) for position in numbered])
        axes.set_ylabel("position of the class in the stream")
    axes.set_title(f"accuracy, {matrix.of}", fontsize="medium")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _names(experiment: Experiment, labels: Sequence[Any]) -> list[str]:
    return [plain(experiment.class_name(label)) for label in labels]


def _bars(
    axes: Axes, ranking: list[Any], means: dict[Any, float], lost: dict[Any, list[float]], experiment: Experiment
) -> None:
    positions, colour = range(len(ranking)), experiment_colour(experiment)
    few = len(ranking) <= _LABELLED
    values = [means[label] for label in ranking]
    # Bars that touch take an edge, or a browser shows the ground between them.
    axes.barh(
        positions, values, height=0.75 if few else 1.0, color=colour, edgecolor=colour, linewidth=0 if few else 0.6
    )
    overall = metrics.mean_std(values).mean
    axes.axvline(overall, color="#D55E00", linewidth=1.2, linestyle="--", label=f"mean {overall:.1f}")
    axes.axvline(0, color="0.3", linewidth=0.8)
    seeds = max(len(each) for each in lost.values())
    title = f"forgetting, {plural(seeds, 'seed')}"
    if few:
        axes.set_yticks(positions, _names(experiment, ranking), fontsize=min(8, 400 / len(ranking)))
        if seeds > 1:
            dots = [
                (value, position) for position, label in zip(positions, ranking, strict=True) for value in lost[label]
            ]
            axes.plot(*zip(*dots, strict=True), ".", color="black", markersize=3.5, label="single seeds")
        axes.set_ylabel("class")
    else:
        # The classes that were forgotten least leave room below on the right.
        most = "\n".join(["most forgotten:", *_names(experiment, ranking[:_WORST])])
        axes.text(0.98, 0.02, most, transform=axes.transAxes, ha="right", va="bottom", fontsize="small")
        axes.set_yticks([])
        axes.set_ylabel("classes, most forgotten first")
    axes.set_ylim(len(ranking) - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.set_xlabel("forgetting (percentage points)")
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        title=title, ncols=2, fontsize="small", frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), borderpad=0
    )
