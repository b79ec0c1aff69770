"""The last accuracy over the one numeric axis of a sweep; where there is none, accuracies over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mist_ext.report.figures.comparison import comparison
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import LABEL, OTHER_COLOURS, TUNER_COLOURS, label_colours, open_axes, plain
from mist_ext.results import metrics
from mist_ext.sweep.grid import Grid
from mist_ext.sweep.outcomes import Outcome
from mist_ext.system.names import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def numeric_axis(grid: Grid) -> str | None:
    """Return the only axis, besides seeds, with several values that are all numbers; None if there is none or more."""
    numeric = [
        name
        for name, labels in grid.axes.items()
        if name != "seeds" and len(labels) > 1 and all(type(label) in (int, float) for label in labels)
    ]
    return numeric[0] if len(numeric) == 1 else None


def draw(grid: Grid, outcomes: Sequence[Outcome]) -> Drawing | None:
    """Draw a panel for each method and value of the other axes: means, and a band of one std over seeds.

    Tuners that do not use the axis are level lines. Where not exactly one numeric axis was swept, accuracies are drawn
    over tasks, as a report draws them. None where nothing is finished, or curves could not be told apart.
    """
    axis = numeric_axis(grid)
    if axis is None or not any(axis in one.axes for one in outcomes):
        named = [replace(one, label=point_label(grid, one)) for one in outcomes if one.experiment.tasks]
        colours = label_colours(named)
        labels = {shown(label, LABEL) for label in colours}
        data = {one.axes["data"]: one.experiment.data for one in named}
        if not named or len(set(colours.values())) < len(colours) or len(labels) < len(colours):
            return None
        if len(set(data.values())) < len(data):  # folders of one name
            return None
        return replace(comparison(named), name="sweep", title="Accuracy over tasks")
    panels: dict[tuple[str, ...], list[Outcome]] = {}
    for one in outcomes:
        known = (axis, "tuner", *grid.redundant)
        others = (shown(value, 40) for name, value in one.axes.items() if name not in known)
        panels.setdefault((*others, shown(one.experiment.method, 40)), []).append(one)
    columns = min(len(panels), 3)
    figure = new_figure(4.6 * columns, 3.7 * math.ceil(len(panels) / columns) + 0.4)
    colours = _colours(outcomes)
    findings = []
    for panel, (name, members) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, panel)
        for tuner in dict.fromkeys(one.axes["tuner"] for one in members):
            own = [one for one in members if one.axes["tuner"] == tuner]
            findings.append(f"{', '.join(name)}, {shown(tuner)}: {_curve(axes, axis, own, colours[tuner])}")
        _dress(axes, axis, grid.axes[axis], panel % columns == 1 or columns == 1)
        axes.set_title(plain(" · ".join(name)), fontsize="medium")
    _legend(figure, colours)
    return Drawing("sweep", f"Accuracy over {axis}", f"Last accuracy over {axis}. {'; '.join(findings)}.", figure)


def point_label(grid: Grid, one: Outcome) -> str:
    """Return a point's tuner, and where it is on the other axes."""
    known = ("data", "tuner", *grid.redundant)
    others = [f"{name} {value}" for name, value in one.axes.items() if name not in known]
    return ", ".join([one.axes["tuner"], *others])


def _curve(axes: Axes, axis: str, outcomes: Sequence[Outcome], colour: str) -> str:
    """Draw a tuner's curve, or its line where it does not use the axis; its numbers in words."""
    spreads = [metrics.mean_std(list(one.experiment.by_seed("last_accuracy").values())) for one in outcomes]
    if axis not in outcomes[0].axes:
        mean, std = spreads[0]
        axes.axhspan(mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(mean, color=colour, linewidth=1.8, linestyle="--")
        return f"{mean:.2f} %"
    ordered = sorted(zip([one.axes[axis] for one in outcomes], spreads, strict=True))
    values = [value for value, _ in ordered]
    low, high = [mean - std for _, (mean, std) in ordered], [mean + std for _, (mean, std) in ordered]
    axes.fill_between(values, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(values, [mean for _, (mean, _) in ordered], color=colour, linewidth=2.0, marker="o", markersize=5)
    return ", ".join(f"{mean:.2f} % at {value}" for value, (mean, _) in ordered)


def _dress(axes: Axes, axis: str, values: Sequence[float], outer: bool) -> None:
    from matplotlib.ticker import NullLocator

    if min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(plain(axis))
    # At least five points, so that noise does not fill the figure.
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    axes.set_ylim(min(low, middle - 2.5), max(high, middle + 2.5))
    open_axes(axes)
    if outer:
        axes.set_ylabel("accuracy after the last task (%)")


def _colours(outcomes: Sequence[Outcome]) -> dict[str, str]:
    names = dict.fromkeys(one.axes["tuner"] for one in outcomes)
    free = (colour for _ in names for colour in OTHER_COLOURS)
    return {name: TUNER_COLOURS.get(name) or next(free) for name in names}


def _legend(figure: Figure, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"linewidth": 3}
    entries = [Line2D([], [], color=colour, label=plain(name, LABEL), **style) for name, colour in colours.items()]
    figure.legend(handles=entries, loc="outside upper center", frameon=False, ncols=len(entries))
