"""What was published for exactly the protocol of a run, beside which its own figures stand."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from mist_ext.config import Config, presets, unused
from mist_ext.data import published_splits
from mist_ext.results import authors_logs
from mist_ext.system.names import quoted

_ZHOU = "result table of the EASE repository (Zhou et al., arXiv 2403.12030), ViT-B/16-IN21K"
# A_avg and A_last in percent, for the data sets in the order of `presets.ZHOU_CLASSES_PER_TASK`.
_ZHOU_ACCURACIES = {
    "l2p": ((85.94, 79.93), (67.05, 56.25), (66.53, 59.22), (49.39, 41.71)),
    "dualprompt": ((87.87, 81.15), (77.47, 66.54), (63.31, 55.22), (53.71, 41.67)),
    "coda_prompt": ((89.11, 81.96), (84.00, 73.37), (64.42, 55.08), (53.54, 42.73)),
    "simplecil": ((87.57, 81.26), (92.20, 86.73), (62.58, 54.55), (59.77, 48.91)),
    "aper_adapter": ((90.65, 85.15), (92.21, 86.73), (72.35, 64.33), (60.47, 49.37)),
    "aper_ssf": ((87.78, 81.98), (91.72, 86.13), (68.94, 60.60), (61.30, 50.03)),
    "aper_vpt_deep": ((88.46, 82.17), (91.02, 84.99), (68.79, 60.48), (58.48, 48.52)),
    "ease": ((91.51, 85.80), (92.23, 86.81), (78.31, 70.58), (65.34, 55.04)),
}
# A figure was published for these settings together; others, such as the number of workers, do not matter to it.
_PROTOCOL = (
    "data",
    "classes_per_task",
    "first_task_classes",
    "class_order",
    "class_order_seed",
    "normalize",
    "evaluate_on",
    "images_per_class",
    "augmentation",
    "skip_broken",
    "backbone",
    "weights",
    "precision",
)
# The log of MIST holds for these besides.
TUNING = (
    "epochs",
    "first_task_epochs",
    "batch_size",
    "lr",
    "later_lr_factor",
    "projector_lr",
    "momentum",
    "weight_decay",
    "schedule",
    "score_objective",
    "tune_objective",
    "rate",
    "keep",
    "drop",
    "dynamics",
    "whole",
    "layers",
    "strike_factor",
    "freeze_rate",
)


def expected(options: Config, split: str) -> dict[str, Any] | None:
    """Return what was published for an experiment's protocol: accuracies in percent, and the source.

    None where nothing was, or where an option that it depends on was changed.

    Parameters
    ----------
    options : Config
        With one tuner and one method.
    split : str
        Which published split of the data set is there, in words (`published_splits`), or nothing.
    """
    if options.preset is None or options.data not in published_splits.SPLITS or changes(options):
        return None
    if split != published_splits.SPLITS[options.data][0].words:  # the official CUB, or only a part
        return None
    (method,) = options.method
    if options.preset.startswith("zhou/"):
        column = list(presets.ZHOU_CLASSES_PER_TASK).index(options.data)
        average, last = _ZHOU_ACCURACIES[method][column]
        return {"average_accuracy": average, "last_accuracy": last, "source": _ZHOU}
    if options.tuner == ["mist"] and method in authors_logs.methods():
        log = authors_logs.log_of(method)
        if log.preset == options.preset:
            return {
                "average_accuracy": log.A_avg,
                "last_accuracy": log.A_last,
                "learning_accuracy": log.A_tt,
                "accuracy_seen": log.accuracy_seen_per_task,
                "source": authors_logs.SOURCE,
            }
    return None


def changes(options: Config) -> dict[str, str]:
    """Return which options of an experiment, of those that its figures depend on, are not its preset's.

    By name, each with both values in words; none where no preset was given. Options that its tuner does not use count
    as little as those that its figures do not depend on.

    Parameters
    ----------
    options : Config
        With one tuner and one method.
    """
    if options.preset is None:
        return {}
    default = Config(**presets.preset(options.preset))
    (tuner,), (method,) = options.tuner, options.method
    if options.normalize == "published" or options.data not in published_splits.SPLITS:
        # It is what auto stands for. Where no protocol was published, data and backbone alone decide.
        options = dataclasses.replace(options, normalize=default.normalize)
    idle = unused.unused_by(tuner)
    names = _PROTOCOL if tuner == "none" else (*_PROTOCOL, *(name for name in TUNING if name not in idle))
    found = {
        name: f"{quoted(ours)} (preset: {quoted(theirs)})"
        for name in names
        if (ours := getattr(options, name)) != (theirs := getattr(default, name))
    }
    for kind, name, known in (("tuner", tuner, default.tuner), ("method", method, default.method)):
        if name not in known:
            found[kind] = f"{quoted(name)} (preset: {', '.join(map(quoted, known))})"
    if "method" not in found:
        ours, theirs = (_of_method(each.method_options, method) for each in (options, default))
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                own, preset = (quoted(of[name]) if name in of else "its default" for of in (ours, theirs))
                found[f"{method}.{name}"] = f"{own} (preset: {preset})"
    return found


def _of_method(assignments: Sequence[str], method: str) -> dict[str, Any]:
    """Return what ``NAME=VALUE`` and ``METHOD.NAME=VALUE`` give to a method."""
    pairs = (text.removeprefix(f"{method}.").partition("=") for text in assignments)
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    """Return a number as such, however it was written; all else as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
