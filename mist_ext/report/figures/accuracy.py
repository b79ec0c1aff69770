"""An experiment's accuracy on the classes seen, after each task, and on the task's own."""

from __future__ import annotations

from mist_ext.report.experiments import Experiment
from mist_ext.report.figures.drawing import Drawing, new_figure
from mist_ext.report.figures.style import SEEN, accuracy_axes, experiment_colour, experiment_title
from mist_ext.report.numbers import plural


def has_figure(_experiment: Experiment) -> bool:
    """Return True: accuracies are always recorded."""
    return True


def draw(experiment: Experiment) -> Drawing:
    """Draw the mean, a band of one standard deviation, every seed thin, and what was right of each task after it."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    tasks = list(range(1, experiment.tasks + 1))
    colour = experiment_colour(experiment)
    means, stds = zip(*experiment.seen_by_task(), strict=True)
    count = len(experiment.counted)
    if count > 1:
        low = [mean - std for mean, std in zip(means, stds, strict=True)]
        high = [mean + std for mean, std in zip(means, stds, strict=True)]
        axes.fill_between(tasks, low, high, color=colour, alpha=0.18, linewidth=0, label="± 1 std")
        for number, run in enumerate(experiment.counted):
            label = "single seeds" if number == 0 else None
            axes.plot(tasks, run.seen, ".-", color=colour, linewidth=0.8, alpha=0.55, markersize=4, label=label)
    name = f"mean of {count} seeds" if count > 1 else f"seed {experiment.counted[0].seed}"
    axes.plot(tasks, means, color=colour, linewidth=2.2, marker="o", markersize=6, label=name)
    learnt = [spread.mean for spread in experiment.learnt_by_task()]
    axes.plot(
        tasks, learnt, "s:", color="0.35", linewidth=1.2, markersize=4, label="a task's own classes, right after it"
    )
    if experiment.expected and experiment.expected.accuracy_seen:
        published = experiment.expected.accuracy_seen
        axes.plot(range(1, len(published) + 1), published, "--", color="black", linewidth=1.2, label="the authors' log")
    end = (tasks[-1], means[-1])
    axes.annotate(f"{end[1]:.1f}", end, (8, 0), textcoords="offset points", va="center", color=colour)
    accuracy_axes(axes, experiment.tasks)
    axes.set_ylabel(SEEN)
    axes.set_title(experiment_title(experiment))
    axes.legend(frameon=False, fontsize="small", loc="best")
    description = (
        f"Accuracy on all classes seen, {experiment.title}, mean of {plural(count, 'seed')}: {means[0]:.2f} % "
        f"after task 1, {means[-1]:.2f} % after task {tasks[-1]}; on a task's own classes right after it "
        f"{sum(learnt) / len(learnt):.2f} % on average."
    )
    return Drawing("accuracy", "Accuracy over tasks", description, figure)
