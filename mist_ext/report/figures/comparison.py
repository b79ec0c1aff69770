"""All experiments' accuracy on the classes seen, in one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mist_ext.report.comparisons import Comparison, groups
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import LABEL, SEEN, accuracy_axes, label_colours, plain
from mist_ext.report.joint_table import title
from mist_ext.report.notes import called

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def comparison(comparisons: Sequence[Comparison]) -> Drawing:
    """Draw a panel per group: colour by tuner, line by method."""
    drawn = groups(comparisons)
    columns = min(len(drawn), 3)
    height = math.ceil(len(drawn) / columns)
    figure = new_figure(4.6 * columns + 1.8, 3.7 * height)
    shown = [one for members in drawn.values() for one in members]
    tuners = label_colours(shown)
    methods = {name: number for number, name in enumerate(sorted({one.experiment.method for one in shown}))}
    for panel, (group, members) in enumerate(drawn.items()):
        axes = figure.add_subplot(height, columns, panel + 1)
        for number, one in enumerate(members):
            # Beside each other, not on top of each other.
            shift = 0.2 * ((number + 0.5) / len(members) - 0.5)
            means, stds = zip(*one.experiment.seen_by_task(), strict=True)
            axes.errorbar(
                [task + shift for task in range(1, group.tasks + 1)],
                means,
                yerr=stds if len(one.experiment.seeds) > 1 else None,
                color=tuners[one.label],
                elinewidth=1,
                markersize=5,
                **_method_style(methods[one.experiment.method]),
            )
        accuracy_axes(axes, group.tasks)
        axes.set_title(plain(title(group, members)), fontsize="medium")
        if panel % columns == 0:
            axes.set_ylabel(SEEN)
    _legend(figure, tuners, methods)
    return Drawing("accuracy", "All experiments", _description(shown), figure)


def _description(comparisons: Sequence[Comparison]) -> str:
    ends = [
        f"{called(one)}: {last.mean:.2f} %" for one in comparisons if (last := one.experiment.metric("last_accuracy"))
    ]
    return f"Accuracy on all classes seen over tasks; after the last task {'; '.join(ends)}."


def _legend(figure: Figure, tuners: dict[str, str], methods: dict[str, int]) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], linestyle="none", label="tuner")]
    entries += [Line2D([], [], color=colour, linewidth=3, label=plain(name, LABEL)) for name, colour in tuners.items()]
    entries += [Line2D([], [], linestyle="none", label=" "), Line2D([], [], linestyle="none", label="method")]
    entries += [
        Line2D([], [], color="black", label=plain(name, LABEL), markersize=5, **_method_style(number))
        for name, number in methods.items()
    ]
    legend = figure.legend(handles=entries, loc="outside right center", frameon=False, handlelength=3)
    for entry in legend.get_texts():
        if entry.get_text() in ("tuner", "method"):
            entry.set_fontweight("bold")


def _method_style(number: int) -> dict[str, Any]:
    lines, markers = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X")
    return {"linewidth": 1.8, "linestyle": lines[number % len(lines)], "marker": markers[number % len(markers)]}
