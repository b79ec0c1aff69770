"""Which layers and kinds of parameters a tuner selected, and where the score is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import LABEL, experiment_title, plain, separate_fields
from mist_ext.report.selection_shares import Position, Shares, recorded, shares
from mist_ext.system.names import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

_MOST_BELOW = 16  # layers; of more, the heat maps stand beside each other
_DECADES = 4  # of the logarithmic colours; what is less looks like the least


def has_figure(experiment: Experiment) -> bool:
    """Return whether any task recorded what was selected."""
    return recorded(experiment)


def draw(experiment: Experiment) -> Drawing:
    """Draw a heat map of layers and kinds for each share that was recorded."""
    from matplotlib.colors import LogNorm, Normalize

    found = shares(experiment)
    panels: list[tuple[str, Mapping[Position, float], str, Normalize]] = [
        ("selected (% of entries)", _percent(found.selected), "Blues", Normalize(0, 100))
    ]
    if any(found.score.values()):
        most = 100 * max(found.score.values())
        panels += [
            ("share of all scores (%)", _percent(found.score), "Oranges", LogNorm(most / 10**_DECADES, most)),
            ("own score in selected entries (%)", _percent(found.held), "Greens", Normalize(0, 100)),
        ]
    wide, tall = max(2.6, 0.38 * len(found.kinds)), max(1.2, 0.22 * len(found.layers))
    below = len(found.layers) <= _MOST_BELOW
    count = len(panels)
    figure = new_figure(1.6 + wide, 1.7 + count * (tall + 0.3)) if below else new_figure(1.6 + count * wide, 1.9 + tall)
    all_axes = figure.subplots(count, 1, squeeze=False)[:, 0] if below else figure.subplots(1, count, squeeze=False)[0]
    for panel, (axes, (title, values, colours, norm)) in enumerate(zip(all_axes, panels, strict=True)):
        heat_map(axes, found.layers, found.kinds, values, colours, norm)
        axes.set_title(title, fontsize="medium")
        lowest, leftmost = not below or panel == count - 1, below or not panel
        name_fields(axes, found.kinds if lowest else [], found.layers if leftmost else [])
    figure.suptitle(experiment_title(experiment))
    return Drawing("selection", "Selected layers", _description(experiment, found), figure)


def _percent(shares: Mapping[Position, float]) -> dict[Position, float]:
    return {position: 100 * share for position, share in shares.items()}


def heat_map(
    axes: Axes,
    layers: Sequence[str],
    kinds: Sequence[str],
    values: Mapping[Position, float],
    colours: str,
    norm: Normalize,
) -> None:
    """Draw a field for each layer and kind, with its value; grey where the model has no such parameter."""
    from matplotlib import colormaps

    shown = [[values.get((layer, kind), math.nan) for kind in kinds] for layer in layers]
    # Zero has no logarithm; it takes the colour of the least.
    clipped = [[max(value, norm.vmin or 0.0) for value in row] for row in shown]
    colour = colormaps[colours]  # a copy each time, which makes its table when it is first used
    axes.imshow(clipped, cmap=colour, norm=norm, aspect="auto", interpolation="none")
    axes.set_facecolor("0.94")  # where the model has no such parameter
    for row, line in enumerate(shown):
        for column, value in enumerate(line):
            if not math.isnan(value):
                red, green, blue, _ = colour(norm(clipped[row][column]))
                ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "black"
                axes.text(column, row, _short(value), ha="center", va="center", color=ink, fontsize=6, in_layout=False)
    separate_fields(axes, len(layers), len(kinds), 1)
    axes.spines[:].set_visible(False)


def name_fields(axes: Axes, kinds: Sequence[str], layers: Sequence[str]) -> None:
    """Name the columns and rows of a heat map; without names there are no ticks."""
    names = [plain(kind, LABEL) for kind in kinds]
    axes.set_xticks(range(len(kinds)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(layers)), [plain(layer, LABEL) for layer in layers])
    axes.tick_params(length=0, labelsize=8)


def _short(percent: float) -> str:
    """Write at most three digits, since the fields are small."""
    if percent >= 9.95 or percent == 0:
        return f"{percent:.0f}"
    if percent >= 0.995:
        return f"{percent:.1f}"
    return f"{percent:.2f}".removeprefix("0") if percent >= 0.005 else "<.01"


def _description(experiment: Experiment, found: Shares) -> str:
    count = f"{len(found.layers)} layers and {len(found.kinds)} kinds of parameters"
    parts = [f"Selected entries of {count}, {experiment.title}: {100 * found.overall:.2f} % of all entries"]
    if found.score:
        top = sorted(found.score, key=lambda position: -found.score[position])[:3]
        named = ", ".join(
            f"{shown(kind)} of {shown(layer)} {100 * found.score[layer, kind]:.1f} %" for layer, kind in top
        )
        parts.append(f"most of the score: {named}")
    return f"{'; '.join(parts)}."
