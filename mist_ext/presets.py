"""Published settings by name, and what was published for exactly these protocols.

``mist/DATA`` is MIST before RanPAC as its authors published it, ``mist/DATA-simplecil`` before SimpleCIL (arXiv
2505.19943 and its code); ``-exact`` is the same with the paper's dynamics and selection rate instead of the code's.
``zhou/simplecil-DATA`` is the training-free baseline in the protocols of Zhou et al.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mist_ext.suggest import unknown

if TYPE_CHECKING:
    from mist_ext.config import Config

_BACKBONE = "vit_base_patch16_224.augreg_in21k"
_MIST: dict[str, Any] = {
    "backbone": _BACKBONE,
    "tuner": ["none", "mist"],
    "seeds": [1],
    "class_order_seed": 1993,
    "epochs": 20,
    "lr": 1e-4,
    "projector_lr": 1e-2,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "keep": 0.1,
}
_PUBLISHED: dict[str, Any] = {"dynamics": "published", "rate": 0.1}
_EXACT: dict[str, Any] = {"dynamics": "exact", "rate": 0.05}
_RANPAC: dict[str, Any] = {"method": ["ranpac"], "ranpac_width": 10000, "batch_size": 56, "freeze_rate": 5e-4}
# Its code freezes a tensor's highest score alone: any rate this small selects one entry.
_SIMPLECIL: dict[str, Any] = {"method": ["simplecil"], "batch_size": 32, "freeze_rate": 1e-9}

# New classes a task; CIFAR-100 in ten tasks of 10, Cars-196 in ten of which the last has 16.
_CLASSES_PER_TASK = {"cifar100": 10, "imagenet_r": 20, "imagenet_a": 20, "cub200": 20, "cars196": 20}

_ZHOU = "result table of the EASE repository (Zhou et al., arXiv 2403.12030), ViT-B/16-IN21K"
# A_avg and A_last in percent, with the new classes a task.
_ZHOU_SIMPLECIL = {
    "cifar100": (5, 87.57, 81.26),
    "cub200": (10, 92.20, 86.73),
    "imagenet_r": (5, 62.58, 54.55),
    "imagenet_a": (20, 59.77, 48.91),
}
# A figure was published for these settings together; others, such as batch sizes, do not matter to it.
_PROTOCOL = (
    "data",
    "classes_per_task",
    "class_order_seed",
    "backbone",
    "weights",
    "normalize",
    "evaluate_on",
    "method",
)


def _made() -> dict[str, dict[str, Any]]:
    presets = {}
    for data, classes in _CLASSES_PER_TASK.items():
        for method, settings in (("", _RANPAC), ("-simplecil", _SIMPLECIL)):
            for dynamics, own in (("", _PUBLISHED), ("-exact", _EXACT)):
                given = {"data": data, "classes_per_task": classes}
                presets[f"mist/{data}{method}{dynamics}"] = {**given, **_MIST, **settings, **own}
    for data, (classes, _, _) in _ZHOU_SIMPLECIL.items():
        presets[f"zhou/simplecil-{data}"] = {
            "data": data,
            "classes_per_task": classes,
            "backbone": _BACKBONE,
            "tuner": ["none"],
            "method": ["simplecil"],
            "seeds": [1993],
            "class_order_seed": 1993,
        }
    return presets


PRESETS = _made()


def preset(name: str) -> dict[str, Any]:
    """The options that a preset sets; an unknown name raises ValueError with the nearest ones."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return {**PRESETS[name], "preset": name}


def expected(options: Config) -> dict[str, Any] | None:
    """What was published for a cell's protocol: average and last accuracy in percent, and the source.

    None where nothing was, or where an option that it depends on was changed.
    """
    if options.preset is None or not options.preset.startswith("zhou/"):
        return None
    default = dataclasses.replace(type(options)(), **preset(options.preset))
    if options.tuner != ["none"] or any(getattr(options, name) != getattr(default, name) for name in _PROTOCOL):
        return None
    _, average, last = _ZHOU_SIMPLECIL[options.data]
    return {"average_accuracy": average, "last_accuracy": last, "source": _ZHOU}
