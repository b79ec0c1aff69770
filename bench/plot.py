"""Draws time over parameters for every op, both axes logarithmic, from the results of roofline.py.

    python bench/plot.py bench/results/my-machine.json --out bench/results/my-machine.png

The numbers at the curves' ends are their time there over ours.
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from models import DTYPES
from results_file import Row, chosen, most_threads, read

from mist_ext.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[int, float]

PANELS = {
    "accumulate_": "score a batch",
    "select": "select 5 % of the entries",
    "drop_apply_sgd_": "drop 90 % and apply, SGD",
    "drop_apply_adamw_": "drop 90 % and apply, AdamW",
}
# Okabe and Ito (2008), as in the reports: ours is blue there too, what it is compared with grey.
OURS, BEST, EAGER = "mist_ext", "best PyTorch", "published"
CURVES = {EAGER: "#7F7F7F", BEST: "#D55E00", OURS: "#0072B2"}
GAP = 0.13  # of the axis' height: two lines of text
NAMES = {"vit_ti": "Ti", "vit_s": "S", "vit_b": "B", "vit_l": "L", "vit_h": "H", "vit_g": "g"}


def figure(rows: list[Row]) -> bytes:
    """Draw a panel for each op.

    Parameters
    ----------
    rows : list of dict
        Of one dtype and number of threads.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    from matplotlib.figure import Figure  # without pyplot: it belongs to no window system

    drawn = [op for op in PANELS if any(row["op"] == op for row in rows)]
    if not drawn:
        raise ValueError(f"there is no row of any of {', '.join(PANELS)}")
    lines = (len(drawn) + 1) // 2
    picture = Figure(figsize=(9.2, 3.7 * lines), dpi=150, layout="constrained")
    panels: list[Axes] = []
    own = {op: sorted((row for row in rows if row["op"] == op), key=lambda row: row["parameters"]) for op in drawn}
    for place, op in enumerate(drawn):
        first = panels[0] if panels else None
        axes = picture.add_subplot(lines, min(2, len(drawn)), place + 1, sharex=first, sharey=first)
        panels.append(axes)
        _panel(axes, own[op])
        axes.set_title(PANELS[op], loc="left", fontweight="bold", fontsize=11)
        axes.tick_params(labelleft=place % 2 == 0)
    for op, axes in zip(drawn, panels, strict=True):
        _name_curves(axes, own[op])
    picture.supxlabel("parameters of the vision transformer", fontsize=10)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
    return buffer.getvalue()


def curves(rows: list[Row]) -> dict[str, list[Point]]:
    """Each curve's points: parameters and milliseconds, where measured."""
    return {
        EAGER: [(r["parameters"], r["variants"]["published"]) for r in rows if "published" in r["variants"]],
        BEST: [(r["parameters"], r["variants"][r["best_torch"]]) for r in rows if r["best_torch"] is not None],
        OURS: [(r["parameters"], r["ms"]) for r in rows],
    }


def _panel(axes: Axes, rows: list[Row]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    drawn = {name: points for name, points in curves(rows).items() if points}
    for name, points in drawn.items():
        ours = name == OURS
        width, marker = (2.4, 6.5) if ours else (1.6, 4.5)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=CURVES[name], linewidth=width, marker="o", markersize=marker, zorder=3 if ours else 2)
    axes.set_xticks(*_ticks(rows))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s")
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, labelsize=9)


def _name_curves(axes: Axes, rows: list[Row]) -> None:
    """Write each curve's name to the right of its end."""
    drawn = {name: points for name, points in curves(rows).items() if points}
    low, high = axes.get_ylim()
    heights = apart([points[-1][1] for points in drawn.values()], GAP * math.log10(high / low))
    last = max(row["parameters"] for row in rows)
    for (name, points), height in zip(drawn.items(), heights, strict=True):
        bold = "bold" if name == OURS else "normal"
        axes.annotate(
            _label(name, points, drawn[OURS]), (last, height), (10, 0), textcoords="offset points", va="center",
            color=CURVES[name], fontsize=9, fontweight=bold, annotation_clip=False,
        )  # fmt: skip


def _label(name: str, points: list[Point], ours: list[Point]) -> str:
    """A curve's name and how many times as long as ours it takes at its last point."""
    parameters, ms = points[-1]
    ratio = ms / dict(ours)[parameters]
    return name if name == OURS else f"{name}\n{ratio:.{0 if ratio >= 100 else 1}f} x"


def apart(heights: list[float], decades: float) -> list[float]:
    """Where the labels of curves that end at these heights are put, at least so far from each other."""
    order = sorted(range(len(heights)), key=heights.__getitem__, reverse=True)
    placed = [math.log10(height) for height in heights]
    for upper, lower in itertools.pairwise(order):
        placed[lower] = min(placed[lower], placed[upper] - decades)
    return [10**height for height in placed]


def _ticks(rows: list[Row]) -> tuple[list[int], list[str]]:
    """The models' sizes and names; the number is left out where the next model is too close for it."""
    sizes = {row["parameters"]: NAMES.get(row["model"], row["model"]) for row in rows}
    following = [*list(sizes)[1:], math.inf]
    labels = [
        f"{name}\n{_millions(size)}" if after / size > 1.8 else name
        for (size, name), after in zip(sizes.items(), following, strict=True)
    ]
    return list(sizes), labels


def _millions(parameters: int) -> str:
    return (
        f"{parameters / 1e9:.1f} B" if parameters > 950e6 else f"{parameters / 1e6:.{0 if parameters > 10e6 else 1}f} M"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="a file that roofline.py has written")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--threads", type=int, help="the most that were measured by default")
    given = parser.parse_args()
    _, rows = read(given.result)
    rows = chosen(rows, given.dtype, given.threads or most_threads(rows))
    try:
        write_atomically(given.out, figure(rows))
    except ValueError as error:
        raise SystemExit(f"{given.result}: {error}") from error


if __name__ == "__main__":
    main()
