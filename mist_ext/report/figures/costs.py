"""What a cell's tasks cost: seconds by phase, and memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mist_ext import metrics
from mist_ext.report import text
from mist_ext.report.cells import PHASES, Cell
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import PHASE_COLOURS, cell_title, open_axes, task_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = (("GiB", 2**30), ("MiB", 2**20))


def draw(cell: Cell) -> Drawing | None:
    """Draw each task's seconds as a stack of phases, and the peak memory so far; None if neither was recorded."""
    seconds = {phase: _means(cell, phase) for phase in PHASES}
    seconds = {phase: values for phase, values in seconds.items() if any(values)}
    records = zip(*(run.tasks for run in cell.counted), strict=True)
    memory = [_mean([task.get("peak_memory_bytes") for task in tasks]) for tasks in records]
    panels = [bool(seconds), any(memory)]
    if not any(panels):
        return None
    figure = new_figure(1.0 + 4.2 * sum(panels), 3.5)
    places = iter(figure.subplots(1, sum(panels), squeeze=False)[0])
    findings = []
    if seconds:
        total = math.fsum(math.fsum(values) for values in seconds.values())
        _stack(next(places), seconds, cell.tasks)
        each = ", ".join(f"{phase} {text.seconds(math.fsum(values))}" for phase, values in seconds.items())
        findings.append(f"{text.seconds(total)} seconds for all tasks ({each})")
    if any(memory):
        unit, size = next(((unit, size) for unit, size in _UNITS if max(memory) >= size), _UNITS[-1])
        _memory(next(places), [value / size for value in memory], unit)
        findings.append(f"at most {max(memory) / size:.2f} {unit} of memory")
    figure.suptitle(cell_title(cell))
    return Drawing("costs", "Time and memory", f"Costs, {cell.title}: {'; '.join(findings)}.", figure)


def _stack(axes: Axes, seconds: dict[str, list[float]], tasks: int) -> None:
    bottom = [0.0] * tasks
    for phase, values in seconds.items():
        label = f"{phase}, {text.seconds(math.fsum(values))} s in all"
        axes.bar(range(1, tasks + 1), values, bottom=bottom, color=PHASE_COLOURS[phase], width=0.75, label=label)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    axes.set_xlim(0.4, tasks + 0.6)
    task_axis(axes, tasks)
    open_axes(axes)
    axes.set_ylim(0, 1.04 * max(bottom))
    axes.set_ylabel("seconds")
    # Upside down, so that the names stand in the order of the stack.
    axes.legend(reverse=True, frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _memory(axes: Axes, values: list[float], unit: str) -> None:
    axes.bar(range(1, len(values) + 1), values, color="0.55", width=0.75)
    axes.set_xlim(0.4, len(values) + 0.6)
    task_axis(axes, len(values))
    open_axes(axes)
    axes.set_ylabel(f"peak memory ({unit})")


def _means(cell: Cell, phase: str) -> list[float]:
    records = zip(*(run.tasks for run in cell.counted), strict=True)
    return [_mean([(task.get("seconds") or {}).get(phase) for task in tasks]) for tasks in records]


def _mean(values: list[float | None]) -> float:
    numbers = [float(value) for value in values if value is not None]
    return metrics.mean_std(numbers)[0] if numbers else 0.0
