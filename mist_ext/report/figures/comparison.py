"""All experiments' accuracy on the classes seen, in one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mist_ext.report.comparisons import Comparison, Group, groups
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import LABEL, SEEN, accuracy_axes, label_colours, plain
from mist_ext.report.joint_table import title
from mist_ext.report.notes import called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ALONE: dict[str, Any] = {"linewidth": 1.8, "linestyle": "-", "marker": "o"}  # a method that has a panel to itself


def comparison(comparisons: Sequence[Comparison]) -> Drawing:
    """Draw each group: a panel for a method where tuners are compared, colour by tuner, else one for all its methods.

    Bands are one standard deviation over seeds; the numbers are the accuracies after the last task.
    """
    panels = [(group, each) for group, members in groups(comparisons).items() for each in _panels(members)]
    columns = min(len(panels), 3)
    height = math.ceil(len(panels) / columns)
    figure = new_figure(4.6 * columns + 1.4, 3.7 * height)
    shown = [one for _, members in panels for one in members]
    tuners = label_colours(shown)
    styles = _styles([one for _, members in panels if len(_methods(members)) > 1 for one in members])
    drawn: dict[Group, Axes] = {}
    for panel, (group, members) in enumerate(panels):
        axes = figure.add_subplot(height, columns, panel + 1, sharey=drawn.get(group))
        drawn.setdefault(group, axes)
        for one in members:
            _curve(axes, one, tuners[one.label], styles.get(one.experiment.method, ALONE))
        methods = _methods(members)
        named = f"\n{plain(methods[0], LABEL)}" if len(methods) == 1 else ""  # else the legend names them
        axes.set_title(plain(title(group, members)) + named, fontsize="medium")
        if panel % columns == 0:
            axes.set_ylabel(SEEN)
    for axes, (group, members) in zip(figure.axes, panels, strict=True):
        accuracy_axes(axes, group.tasks)
        _number_ends(axes, [(one.experiment.seen_by_task()[-1].mean, tuners[one.label]) for one in members])
    _legend(figure, tuners, styles)
    return Drawing("accuracy", "All experiments", _description(shown), figure)


def _methods(members: Sequence[Comparison]) -> list[str]:
    return sorted({one.experiment.method for one in members})


def _panels(members: Sequence[Comparison]) -> list[list[Comparison]]:
    """Split a group by method if it has several tuners."""
    if len({one.label for one in members}) == 1:
        return [list(members)]
    by_method: dict[str, list[Comparison]] = {}
    for one in members:
        by_method.setdefault(one.experiment.method, []).append(one)
    return list(by_method.values())


def _curve(axes: Axes, one: Comparison, colour: str, style: dict[str, Any]) -> None:
    tasks = range(1, one.experiment.tasks + 1)
    means, stds = zip(*one.experiment.seen_by_task(), strict=True)
    if one.experiment.tasks == 1:  # where a band has no width
        axes.errorbar(tasks, means, stds, color=colour, elinewidth=1)
    elif len(one.experiment.seeds) > 1:
        low = [mean - std for mean, std in zip(means, stds, strict=True)]
        high = [mean + std for mean, std in zip(means, stds, strict=True)]
        axes.fill_between(tasks, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(tasks, means, color=colour, markersize=4, **style)


def _number_ends(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """Write numbers to the right of the curves, one below the other where curves end together."""
    low, high = axes.get_ylim()
    line = 0.055 * (high - low)
    heights: list[float] = []
    ordered = sorted(ends, reverse=True)
    for value, _ in ordered:
        heights.append(min(value, heights[-1] - line) if heights else value)
    floor = low + line / 2  # above the axis
    for index in reversed(range(len(heights))):
        heights[index] = max(heights[index], floor)
        floor = heights[index] + line
    for height, (value, colour) in zip(heights, ordered, strict=True):
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
        axes.text(1.0, height, f"{value:.1f}", color=colour, **place)


def _description(comparisons: Sequence[Comparison]) -> str:
    ends = [
        f"{called(one)}: {last.mean:.2f} %" for one in comparisons if (last := one.experiment.metric("last_accuracy"))
    ]
    return f"Accuracy on all classes seen over tasks; after the last task {'; '.join(ends)}."


def _legend(figure: Figure, tuners: dict[str, str], styles: dict[str, dict[str, Any]]) -> None:
    """Name tuners by their colours; and methods by their lines, where several share a panel."""
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], linestyle="none", label="tuner")]
    entries += [Line2D([], [], color=colour, linewidth=3, label=plain(name, LABEL)) for name, colour in tuners.items()]
    if styles:
        entries += [Line2D([], [], linestyle="none", label=" "), Line2D([], [], linestyle="none", label="method")]
        entries += [
            Line2D([], [], color="black", label=plain(name, LABEL), markersize=4, **style)
            for name, style in styles.items()
        ]
    legend = figure.legend(handles=entries, loc="outside right center", frameon=False, handlelength=3)
    for entry in legend.get_texts():
        if entry.get_text() in ("tuner", "method"):
            entry.set_fontweight("bold")


def _styles(members: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """Return how the curves of each method are drawn that shares a panel with others."""
    lines, markers = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X")
    return {
        name: {"linewidth": 1.8, "linestyle": lines[number % 4], "marker": markers[number % 7]}
        for number, name in enumerate(_methods(members))
    }
