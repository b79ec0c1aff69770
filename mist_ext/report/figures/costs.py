"""What an experiment's tasks cost: seconds and peak memory, by phase."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mist_ext.report import numbers
from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import PHASE_COLOURS, experiment_title, open_axes, task_axis
from mist_ext.results import metrics
from mist_ext.system.costs import PHASES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = (("GiB", 2**30, 2), ("MiB", 2**20, 0))  # name, bytes, digits
_GROUP = 0.84  # of the room of a task: the width of all its bars


def has_figure(experiment: Experiment) -> bool:
    """Return whether seconds or memory were recorded."""
    return any(_recorded(experiment))


def draw(experiment: Experiment) -> Drawing:
    """Draw each task's seconds as a stack of phases, and beside them each phase's peak memory as a bar.

    A phase that took nothing is left out.
    """
    seconds, peaks = _recorded(experiment)
    panels = [bool(seconds), bool(peaks)]
    figure = new_figure(1.0 + (4.2 + 0.1 * max(0, experiment.tasks - 10)) * sum(panels), 3.7)
    panels_left = iter(figure.subplots(1, sum(panels), squeeze=False)[0])
    findings = []
    if seconds:
        total = math.fsum(math.fsum(values) for values in seconds.values())
        axes = next(panels_left)
        _stack(axes, seconds, experiment.tasks)
        _finish(axes, experiment.tasks, "seconds", upwards=True)
        each = ", ".join(f"{phase} {numbers.seconds(math.fsum(values))}" for phase, values in seconds.items())
        findings.append(f"{numbers.seconds(total)} seconds for all tasks ({each})")
    if peaks:
        most = max(max(values) for values in peaks.values())
        unit, size, digits = next((unit for unit in _UNITS if most >= unit[1]), _UNITS[-1])
        axes = next(panels_left)
        bars = {phase: [value / size for value in values] for phase, values in peaks.items()}
        _groups(axes, bars, unit, digits)
        _finish(axes, experiment.tasks, f"peak memory ({unit})", upwards=False)
        each = ", ".join(f"{phase} {max(values):.{digits}f}" for phase, values in bars.items())
        findings.append(f"at most {most / size:.{digits}f} {unit} of memory ({each})")
    figure.suptitle(experiment_title(experiment))
    return Drawing("costs", "Time and memory", f"Costs, {experiment.title}: {'; '.join(findings)}.", figure)


def _stack(axes: Axes, seconds: dict[str, list[float]], tasks: int) -> None:
    bottom = [0.0] * tasks
    for phase, values in seconds.items():
        label = f"{phase}, {numbers.seconds(math.fsum(values))} s in all"
        axes.bar(range(1, tasks + 1), values, bottom=bottom, color=PHASE_COLOURS[phase], width=0.75, label=label)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    axes.set_ylim(0, 1.04 * max(bottom))


def _groups(axes: Axes, peaks: dict[str, list[float]], unit: str, digits: int) -> None:
    width = _GROUP / len(peaks)
    for number, (phase, values) in enumerate(peaks.items()):
        centres = [task + (number + 0.5) * width - _GROUP / 2 for task in range(1, len(values) + 1)]
        label = f"{phase}, at most {max(values):.{digits}f} {unit}"
        axes.bar(centres, values, color=PHASE_COLOURS[phase], width=width, label=label)
    axes.set_ylim(0, 1.04 * max(map(max, peaks.values())))


def _finish(axes: Axes, tasks: int, label: str, upwards: bool) -> None:
    axes.set_xlim(0.4, tasks + 0.6)
    task_axis(axes, tasks)
    open_axes(axes)
    axes.set_ylabel(label)
    # The names of a stack stand in its order: upside down.
    axes.legend(
        reverse=upwards, frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2
    )


def _recorded(experiment: Experiment) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return seconds and peak memory of each task, by phase."""
    seconds = {phase: _means(experiment, phase) for phase in PHASES}
    peaks = {phase: _largest(experiment, phase) for phase in PHASES}
    return (
        {phase: values for phase, values in seconds.items() if any(values)},
        {phase: values for phase, values in peaks.items() if any(values)},
    )


def _means(experiment: Experiment, phase: str) -> list[float]:
    records = zip(*(run.tasks for run in experiment.counted), strict=True)
    return [_mean([task.seconds.get(phase) for task in tasks]) for tasks in records]


def _largest(experiment: Experiment, phase: str) -> list[float]:
    """Return the largest peak of each task over seeds; 0 where nothing was recorded."""
    records = zip(*(run.tasks for run in experiment.counted), strict=True)
    return [max(task.peak_memory_bytes.get(phase) or 0.0 for task in tasks) for tasks in records]


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return metrics.mean_std(known).mean if known else 0.0
