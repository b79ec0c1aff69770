"""What the tasks changed in the backbone: where, how much, and how far they overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mist_ext.report.delta_files import delta_files
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.layers import heat_map, name_fields
from mist_ext.report.figures.style import NOT_SEEN, experiment_title, labelled_ticks, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mist_ext.report.delta_summary import DeltaSummary

_DECADES = 3  # of the logarithmic colours; what is less looks like the least
_LONG = 12  # characters of a delta's name beside a matrix
_SMALLEST = 4.5  # points; smaller values are left out and the colours speak


def has_figure(experiment: Experiment) -> bool:
    """Return whether the tasks' deltas lie beside the experiment's results."""
    return bool(delta_files(experiment))


def draw(experiment: Experiment) -> Drawing:
    """Draw the deltas of an experiment's first seed that has any, and say which one that is where there are more."""
    from mist_ext.report.delta_summary import DeltaSummary  # which loads torch

    title, seeds = experiment_title(experiment), list(delta_files(experiment))
    if len(seeds) > 1:
        title += f" · seed {seeds[0]}, the first of {len(seeds)}"
    return draw_summary(DeltaSummary.of_experiment(experiment), title)


def draw_summary(summary: DeltaSummary, title: str) -> Drawing:
    """Draw what is changed and how much by layer and kind, and the overlap and agreement of each two deltas.

    Parameters
    ----------
    summary : DeltaSummary
    title : str
    """
    from matplotlib.colors import LogNorm, Normalize

    layers, kinds, count = summary.layers, summary.kinds, len(summary.deltas)
    wide, tall = max(3.2, 0.38 * len(kinds)), max(1.4, 0.22 * len(layers))
    side = max(2.0, min(0.42 * count, 5.0))
    figure = new_figure(2.6 + wide + side, 2.6 + 2 * max(tall, side))
    axes = figure.subplots(2, 2, width_ratios=[wide, side])
    shares, squared = summary.shares(), {place: value**2 for place, value in summary.norms().items()}
    total = sum(squared.values())
    parts = {place: 100 * value / total for place, value in squared.items()} if total else {}
    if shares:
        heat_map(axes[0, 0], layers, kinds, shares, "Blues", Normalize(0, max([*shares.values(), 1.0])))
        name_fields(axes[0, 0], [] if parts else kinds, layers)
    else:
        axes[0, 0].set_axis_off()
    axes[0, 0].set_title("changed (% of entries)" if shares else "nothing changed", fontsize="medium")
    if parts:
        most = max(parts.values())
        heat_map(axes[1, 0], layers, kinds, parts, "Oranges", LogNorm(most / 10**_DECADES, most))
        name_fields(axes[1, 0], kinds, layers)
    else:
        axes[1, 0].set_axis_off()
    title_below = "share of the squared change (%)" if parts else "no values before, so no sizes"
    axes[1, 0].set_title(title_below, fontsize="medium")
    names, shared = list(summary.deltas), summary.overlap
    _matrix(axes[0, 1], names, shared.jaccard, side, "Greens", 1)
    axes[0, 1].set_title("overlap (Jaccard)", fontsize="medium")
    axes[0, 1].set_xticklabels([])
    _matrix(axes[1, 1], names, shared.agreement, side, "PuOr", 100)
    axes[1, 1].set_title("same sign (% of shared)", fontsize="medium")
    figure.suptitle(title)
    return Drawing("deltas", "What each task changed", _description(summary, title), figure)


def _matrix(
    axes: Axes, names: Sequence[str], rows: Sequence[Sequence[float | None]], side: float, colours: str, most: float
) -> None:
    """Draw a value for each two deltas, from 0 to ``most``."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    norm = Normalize(0, most)
    shown = [[math.nan if value is None else most * value for value in row] for row in rows]
    axes.imshow(shown, cmap=colours, norm=norm, interpolation="none")
    axes.set_facecolor(NOT_SEEN)
    points = min(8.0, 72 * side / len(names) / 2.6)
    for row, line in enumerate(shown if points >= _SMALLEST else []):
        for column, value in enumerate(line):
            if not math.isnan(value):
                red, green, blue, _ = colormaps[colours](norm(value))
                ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "black"
                written = f"{value:.0f}" if most == 100 else f"{value:.2f}".removeprefix("0")
                axes.text(column, row, written, ha="center", va="center", color=ink, fontsize=points, in_layout=False)
    labelled = labelled_ticks(len(names), 20)
    texts = [plain(names[each], _LONG) for each in labelled]
    turned = max(map(len, texts)) > 3
    axes.set_xticks(labelled, texts, rotation=60 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(labelled, texts)
    axes.tick_params(length=0, labelsize=8)
    axes.set_ylabel("delta of task" if not turned else "")
    axes.spines[:].set_visible(False)


def _description(summary: DeltaSummary, title: str) -> str:
    changed = [sum(one.changed for one in own) for own in summary.changes.values()]
    parts = [f"Changes of {len(changed)} tasks, {title}: {min(changed):,} to {max(changed):,} entries of a task"]
    pairs = [value for row, line in enumerate(summary.overlap.jaccard) for value in line[row + 1 :]]
    if pairs:
        parts.append(f"overlap of two tasks {min(pairs):.2f} to {max(pairs):.2f}")
    signs = [v for row, line in enumerate(summary.overlap.agreement) for v in line[row + 1 :] if v is not None]
    if signs:
        parts.append(f"the same sign in {100 * min(signs):.0f} to {100 * max(signs):.0f} % of what two share")
    return f"{'; '.join(parts)}."
