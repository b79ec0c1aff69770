"""Figures in colours that colour-blind readers can tell apart. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mist_ext.report import text
from mist_ext.report.cells import Cell
from mist_ext.report.rows import Row, groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is faint on white. The frozen backbone
# is a grey reference; the tuners that are compared most keep their colour in every figure, others take what
# is left.
_TUNER_COLOURS = {"none": "#7F7F7F", "mist": "#0072B2", "full": "#009E73", "random": "#E69F00"}
_OTHER_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#000000")
_SEEN = "accuracy on all classes seen (%)"


def accuracy_figure(cell: Cell) -> bytes:
    """Draw a cell's accuracy on the classes seen: the mean, a band of one std, and every seed thin.

    Returns
    -------
    bytes
        A PNG.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.add_subplot()
    tasks = list(range(1, cell.tasks + 1))
    colour = _TUNER_COLOURS.get(cell.tuner, _OTHER_COLOURS[0])
    means, stds = zip(*cell.seen_by_task(), strict=True)
    count = len(cell.counted)
    if count > 1:
        low = [mean - std for mean, std in zip(means, stds, strict=True)]
        high = [mean + std for mean, std in zip(means, stds, strict=True)]
        axes.fill_between(tasks, low, high, color=colour, alpha=0.18, linewidth=0, label="± 1 std")
        for place, run in enumerate(cell.counted):
            label = "single seeds" if place == 0 else None
            axes.plot(tasks, run.seen, ".-", color=colour, linewidth=0.8, alpha=0.55, markersize=4, label=label)
    name = f"mean of {count} seeds" if count > 1 else f"seed {cell.counted[0].seed}"
    axes.plot(tasks, means, color=colour, linewidth=2.2, marker="o", markersize=6, label=name)
    end = (tasks[-1], means[-1])
    axes.annotate(f"{end[1]:.1f}", end, (8, 0), textcoords="offset points", va="center", color=colour)
    _dress(axes, cell.tasks)
    axes.set_ylabel(_SEEN)
    axes.set_title(_name(cell))
    axes.legend(frameon=False, fontsize="small", loc="best")
    return _png(figure)


def matrix_figure(cell: Cell) -> bytes:
    """Draw a cell's accuracy matrix as a heat map with its values, averaged over seeds.

    Returns
    -------
    bytes
        A PNG.
    """
    matrix = cell.mean_matrix()
    size = len(matrix)
    side = max(2.4, min(0.62 * size, 9.0))
    figure = _figure(side + 2.0, side + 1.2)
    axes = figure.add_subplot()
    shown = [row + [math.nan] * (size - len(row)) for row in matrix]
    low, high = _colour_range([value for row in matrix for value in row])
    image = axes.imshow(shown, cmap="Blues", vmin=low, vmax=high)
    for after, row in enumerate(matrix):
        for on, value in enumerate(row):
            # The upper part of this colour map is dark.
            ink = "white" if value > low + 0.6 * (high - low) else "black"
            axes.text(on, after, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=9)
    # White lines between the cells.
    axes.set_xticks([place - 0.5 for place in range(1, size)], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, size)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    labels = [str(task) for task in range(1, size + 1)]
    axes.set_xticks(range(size), labels)
    axes.set_yticks(range(size), labels)
    axes.set_xlabel("evaluated on task")
    axes.set_ylabel("after task")
    axes.set_title(_name(cell))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label="accuracy (%)", fraction=0.046, pad=0.04)
    bar.outline.set_visible(False)
    return _png(figure)


def comparison_figure(rows: Sequence[Row]) -> bytes:
    """Draw all cells' accuracy on the classes seen: a panel per group, colour by tuner, line by method.

    Returns
    -------
    bytes
        A PNG.
    """
    drawn = groups(rows)
    columns = min(len(drawn), 3)
    height = math.ceil(len(drawn) / columns)
    figure = _figure(4.6 * columns + 1.8, 3.7 * height)
    shown = [row for members in drawn.values() for row in members]
    tuners = _colours(shown)
    methods = {name: place for place, name in enumerate(sorted({row.cell.method for row in shown}))}
    for place, (group, members) in enumerate(drawn.items()):
        axes = figure.add_subplot(height, columns, place + 1)
        for number, row in enumerate(members):
            # Beside each other, not on top of each other.
            shift = 0.2 * ((number + 0.5) / len(members) - 0.5)
            means, stds = zip(*row.cell.seen_by_task(), strict=True)
            axes.errorbar(
                [task + shift for task in range(1, group.tasks + 1)],
                means,
                yerr=stds if len(row.seeds) > 1 else None,
                color=tuners[row.label],
                elinewidth=1,
                markersize=5,
                **_method_style(methods[row.cell.method]),
            )
        _dress(axes, group.tasks)
        axes.set_title(text.title(group, members), fontsize="medium")
        if place % columns == 0:
            axes.set_ylabel(_SEEN)
    _legend(figure, tuners, methods)
    return _png(figure)


def _legend(figure: Figure, tuners: dict[str, str], methods: dict[str, int]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], linestyle="none", label="tuner")]
    entries += [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in tuners.items()]
    entries += [Line2D([], [], linestyle="none", label=" "), Line2D([], [], linestyle="none", label="method")]
    entries += [
        Line2D([], [], color="black", label=name, markersize=5, **_method_style(place))
        for name, place in methods.items()
    ]
    legend = figure.legend(handles=entries, loc="outside right center", frameon=False, handlelength=3)
    for entry in legend.get_texts():
        if entry.get_text() in ("tuner", "method"):
            entry.set_fontweight("bold")


def _method_style(place: int) -> dict[str, Any]:
    lines, markers = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X")
    return {"linewidth": 1.8, "linestyle": lines[place % len(lines)], "marker": markers[place % len(markers)]}


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for each tuner, the frozen backbone first."""
    names = sorted({row.label for row in rows}, key=lambda name: (name != "none", name))
    free = itertools.cycle(_OTHER_COLOURS)
    return {name: _TUNER_COLOURS.get(name) or next(free) for name in names}


def _colour_range(values: Sequence[float]) -> tuple[float, float]:
    """Whole tens around the values, wide enough that small differences stay small."""
    high = min(100.0, 10.0 * math.ceil(max(values) / 10))
    return max(0.0, min(10.0 * math.floor(min(values) / 10), high - 30)), max(high, 30.0)


def _dress(axes: Axes, tasks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("task")
    margin = 0.25 + 0.04 * tasks
    axes.set_xlim(1 - margin, tasks + margin)
    if tasks > 20:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(range(1, tasks + 1))
    # At least five points, so that noise does not fill the figure, and nothing above 100 % but half a marker.
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    low, high = min(low, middle - 2.5), max(high, middle + 2.5)
    if high > 100:
        low = min(low, 95.0)
        high = 100 + 0.03 * (100 - low)
    axes.set_ylim(max(low, -0.03 * high), high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name(cell: Cell) -> str:
    return f"{cell.data} · {cell.tuner} · {cell.method}"


def _figure(width: float, height: float) -> Figure:
    # A Figure without pyplot: it belongs to no window system and frees itself.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Tight, since a heat map of fixed shape would otherwise push its labels over the edge.
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
    return buffer.getvalue()
