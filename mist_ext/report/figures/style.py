"""Colours that colour-blind readers can tell apart, and axes that look alike in every figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mist_ext.report.comparisons import Comparison
from mist_ext.report.experiments import Experiment
from mist_ext.system.names import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is faint on white. The frozen backbone
# is a grey reference; the tuners that are compared most keep their colour in every figure, others take what
# is left.
TUNER_COLOURS = {"none": "#7F7F7F", "mist": "#0072B2", "full": "#009E73", "random": "#E69F00"}
OTHER_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#000000")
PHASE_COLOURS = {  # of `mist_ext.system.costs.PHASES`
    "score": "#56B4E9",
    "select": "#CC79A7",
    "tune": "#0072B2",
    "learn": "#E69F00",
    "evaluate": "#009E73",
}
NOT_SEEN = "0.90"  # a grey, instead of an accuracy on what is yet to come
LABEL = 32  # characters of a label; the parts of a title are cut already
SEEN = "accuracy on all classes seen (%)"


def experiment_colour(experiment: Experiment) -> str:
    """Return the colour of an experiment's tuner in its own figures."""
    return TUNER_COLOURS.get(experiment.tuner, OTHER_COLOURS[0])


def label_colours(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Return a colour for each tuner, the frozen backbone first."""
    names = sorted({one.label for one in comparisons}, key=lambda name: (name != "none", name))
    free = itertools.cycle(OTHER_COLOURS)
    return {name: TUNER_COLOURS.get(name) or next(free) for name in names}


def experiment_title(experiment: Experiment) -> str:
    """Return the title of an experiment's figures."""
    return plain(experiment.title)


def plain(words: object, longest: int = 140) -> str:
    """Return a name that matplotlib takes as it is, cut to fit: between two dollars it would look for a formula."""
    return shown(words, longest).replace("$", r"\$")


def accuracy_colours() -> Colormap:
    """Return blues that begin where they differ from a page and from `NOT_SEEN`."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"]([0.14 + 0.86 * level / 255 for level in range(256)]))


def colour_range(values: Sequence[float]) -> tuple[float, float]:
    """Return whole tens around the values, wide enough that small differences stay small."""
    high = min(100.0, 10.0 * math.ceil(max(values) / 10))
    return max(0.0, min(10.0 * math.floor(min(values) / 10), high - 30)), max(high, 30.0)


def labelled_ticks(count: int, most: int) -> list[int]:
    """Return which of so many rows or columns carry their number, counted from 0: all, or some of too many."""
    every = 1 if count <= most else 5 * math.ceil(count / (5 * most))
    return sorted({0, *range(every - 1, count, every)})


def task_axis(axes: Axes, tasks: int) -> None:
    """Label the horizontal axis with the tasks, counted from 1."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("task")
    if tasks > 20:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(range(1, tasks + 1))


def accuracy_axes(axes: Axes, tasks: int) -> None:
    """Set up axes of accuracies in percent over tasks."""
    from matplotlib.ticker import MaxNLocator

    task_axis(axes, tasks)
    margin = 0.25 + 0.04 * tasks
    axes.set_xlim(1 - margin, tasks + margin)
    # At least five points, so that noise does not fill the figure, and nothing above 100 % but half a marker.
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    low, high = min(low, middle - 2.5), max(high, middle + 2.5)
    if high > 100:
        low = min(low, 95.0)
        high = 100 + 0.03 * (100 - low)
    axes.set_ylim(max(low, -0.03 * high), high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    open_axes(axes)


def separate_fields(axes: Axes, rows: int, columns: int, width: float) -> None:
    """Draw white lines of so many points between the fields of a heat map.

    Not as a grid of minor ticks: each of these is as slow to make and draw as a label.
    """
    from matplotlib.collections import LineCollection

    across = [[(0, row - 0.5), (1, row - 0.5)] for row in range(1, rows)]
    down = [[(column - 0.5, 0), (column - 0.5, 1)] for column in range(1, columns)]
    for lines, transform in ((across, axes.get_yaxis_transform()), (down, axes.get_xaxis_transform())):
        drawn = LineCollection(lines, colors="white", linewidths=width, capstyle="projecting", transform=transform)
        drawn.set_in_layout(False)
        axes.add_collection(drawn, autolim=False)


def open_axes(axes: Axes) -> None:
    """Draw horizontal lines behind the data, no box around it."""
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
