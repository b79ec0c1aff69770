"""Saving the trained classifiers of a seed run, where the options ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mist_ext.distributed import ranks
from mist_ext.distributed.shard_files import gather_tensors
from mist_ext.runs import classifiers
from mist_ext.runs.context import RunContext, method_options
from mist_ext.runs.seed_run import SeedRun
from mist_ext.system.names import utf8


def save_classifiers(
    context: RunContext,
    seed_run: SeedRun,
    folders: Mapping[str, Path],
    deltas: Mapping[str, str],
    task: int | None = None,
) -> None:
    """Save the classifier of every method, with the backbone where it is no longer as it was created.

    Where there are deltas that lead from the backbone as it was created to what it is, their names are enough. Only
    then are there classifiers of tasks before the last one.

    Parameters
    ----------
    context : RunContext
    seed_run : SeedRun
        All of whose tasks are learned, or those up to ``task``.
    folders : mapping of str to Path
        The experiments' folders, by the method's name.
    deltas : mapping of str to str
        The files in these folders that have what the tasks changed, in order, and the digest of the backbone after it.
    task : int, optional
        The number of a task before the last one, from 1.
    """
    options, source = context.options, context.source
    wanted = {"none": False, "first": seed_run.seed == options.seeds[0], "all": True}
    if not wanted[options.save]:
        return
    created_again = options.weights != "none" and options.precision != "bf16-pure"
    named = dict(deltas) if created_again else {}
    if task is not None and not named:
        return
    as_created = created_again and not seed_run.tuner.moves_backbone
    weights = None if as_created or named else gather_tensors(seed_run.backbone.state_dict())
    if not ranks.is_first():
        return
    views = seed_run.stream.tasks[0].test.views
    known = seed_run.stream.class_order[: seed_run.stream.tasks[-1 if task is None else task - 1].classes.stop]
    for name, learner in seed_run.learners.items():
        description = {
            "backbone": options.backbone,
            "weights": options.weights,
            "method": name,
            "method_options": method_options(options, name, seed_run.seed),
            "class_names": [utf8(source.class_names[label]) for label in known],
            "transform": type(views.transform).__name__,
            "size": views.transform.size,
            "as_shown": views.images.as_shown,
            "deltas": named,
            "mean": views.mean,
            "std": views.std,
        }
        classifiers.save_classifier(folders[name], seed_run.seed, weights, learner, description, task)
