"""Settings by name, and what was published for exactly these protocols.

``mist/DATA`` is MIST before RanPAC as its authors published it, ``mist/DATA-simplecil`` before SimpleCIL (arXiv
2505.19943 and its code); ``-exact`` is the same with the paper's dynamics and selection rate instead of the code's.
``zhou/METHOD-DATA`` are freeze-based methods without MIST in the protocols of Zhou et al.

``embedded/glyphs-METHOD`` is what the embedded backbone needs on the embedded characters where the published settings,
made for a ViT-B/16, end far below SimpleCIL; chosen on held-out training images (``bench/choose_settings.py``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mist_ext.data import published_splits
from mist_ext.system.suggest import unknown

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
_ZHOU_CLASSES_PER_TASK = {"cifar100": 5, "cub200": 10, "imagenet_r": 5, "imagenet_a": 20}
# A_avg and A_last in percent, for the data sets in this order.
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
_EMBEDDED = {
    "ease": ["alpha=0.01", "epochs=5"],
    "l2p": ["classifier=prototypes", "head_type=token"],
    "dualprompt": ["classifier=prototypes"],
    "coda_prompt": ["classifier=prototypes", "epochs=5"],
}
# A figure was published for these settings together; others, such as the number of workers, do not matter to it.
_PROTOCOL = (
    "data",
    "classes_per_task",
    "class_order_seed",
    "normalize",
    "evaluate_on",
    "skip_broken",
    "backbone",
    "weights",
    "precision",
    "tuner",
    "method",
    "method_options",
)


def _made() -> dict[str, dict[str, Any]]:
    presets = {}
    for data, classes in _CLASSES_PER_TASK.items():
        for method, settings in (("", _RANPAC), ("-simplecil", _SIMPLECIL)):
            for dynamics, own in (("", _PUBLISHED), ("-exact", _EXACT)):
                given = {"data": data, "classes_per_task": classes}
                presets[f"mist/{data}{method}{dynamics}"] = {**given, **_MIST, **settings, **own}
    for method in _ZHOU_ACCURACIES:
        for data, classes in _ZHOU_CLASSES_PER_TASK.items():
            presets[f"zhou/{method}-{data}"] = {
                "data": data,
                "classes_per_task": classes,
                "backbone": _BACKBONE,
                "tuner": ["none"],
                "method": [method],
                "seeds": [1993],
                "class_order_seed": 1993,
            }
    for method, options in _EMBEDDED.items():
        own = {"tuner": ["none"], "method": [method], "method_options": options}
        presets[f"embedded/glyphs-{method}"] = {"data": "glyphs", **own}
    return presets


PRESETS = _made()


def preset(name: str) -> dict[str, Any]:
    """The options that a preset sets; an unknown name raises ValueError with the nearest ones."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return {**PRESETS[name], "preset": name}


def expected(options: Config, split: str) -> dict[str, Any] | None:
    """What was published for a cell's protocol: average and last accuracy in percent, and the source.

    None where nothing was, or where an option that it depends on was changed.

    Parameters
    ----------
    options : Config
    split : str
        Which published split of the data set is there, in words (`published_splits`), or nothing.
    """
    if options.preset is None or not options.preset.startswith("zhou/"):
        return None
    default = dataclasses.replace(type(options)(), **preset(options.preset))
    if options.normalize == "published":  # which auto stands for, as these are published data sets
        options = dataclasses.replace(options, normalize=default.normalize)
    if any(getattr(options, name) != getattr(default, name) for name in _PROTOCOL):
        return None
    if split != published_splits.SPLITS[options.data][0].words:  # the official CUB, or only a part
        return None
    place = list(_ZHOU_CLASSES_PER_TASK).index(options.data)
    average, last = _ZHOU_ACCURACIES[options.method[0]][place]
    return {"average_accuracy": average, "last_accuracy": last, "source": _ZHOU}
