"""Settings by name.

``mist/DATA`` is MIST before RanPAC as its authors published it, ``mist/DATA-simplecil`` before SimpleCIL (arXiv
2505.19943 and its code); ``-exact`` is the same with the paper's dynamics and selection rate instead of the code's,
and ``-paper`` what the paper's text says and nothing else: no strikes and no freezing either.
``mist/DATA-HOST`` is MIST before another method, with MIST's settings of SimpleCIL: none was published for these;
``mist/DATA-ranpac_adapter`` RanPAC with its own phase 1, in whose place the published code has MIST.
``mist/imagenet_r-ablation-NAME`` and ``mist/imagenet_r-simplecil-ablation-NAME`` are the ablations of the code.
``zhou/METHOD-DATA`` are freeze-based methods without MIST in the protocols of Zhou et al.

``embedded/renditions`` tunes most in the first task, by a momentum that takes every gradient; chosen on
``renditions_dev``. A third of the images and one seed are what minutes on two cores allow;
``bench/sweeps/renditions.yaml`` takes all, for more epochs and at higher rates.

``embedded/glyphs-METHOD`` is what the embedded backbone needs on the embedded characters where the published settings,
made for a ViT-B/16, end far below SimpleCIL; chosen on held-out training images (``bench/choose_settings.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mist_ext.config.option import about
from mist_ext.config.tuning import TuningOptions
from mist_ext.system.suggest import unknown

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
# Neither strikes nor freezing are in the text.
_PAPER: dict[str, Any] = {**_EXACT, "strike_factor": 1.0, "freeze_rate": 0.0}
# Of which those count that a run has.
_WIDTHS = [f"{name}.width=10000" for name in ("ranpac", "ranpac_adapter", "ranpac_ssf", "ranpac_vpt_deep")]
_RANPAC: dict[str, Any] = {"method": ["ranpac"], "method_options": _WIDTHS, "batch_size": 56, "freeze_rate": 5e-4}
# Its code freezes a tensor's highest score alone: any rate this small selects one entry.
_SIMPLECIL: dict[str, Any] = {"method": ["simplecil"], "batch_size": 32, "freeze_rate": 1e-9}

_HOSTS = ("l2p", "dualprompt", "ease", "slca")
# Chosen anew in every step, cross-entropy on one view, dense SGD, nothing dropped.
_ABLATIONS = {
    "random": "published_random",
    "magnitude": "published_magnitude",
    "gradient": "published_gradient",
    "full-ce": "full",
}

# New classes a task; CIFAR-100 in ten tasks of 10, Cars-196 in ten of which the last has 16.
_CLASSES_PER_TASK = {"cifar100": 10, "imagenet_r": 20, "imagenet_a": 20, "cub200": 20, "cars196": 20}

ZHOU_CLASSES_PER_TASK = {"cifar100": 5, "cub200": 10, "imagenet_r": 5, "imagenet_a": 20}
_ZHOU_METHODS = (
    "l2p",
    "dualprompt",
    "coda_prompt",
    "simplecil",
    "aper_adapter",
    "aper_ssf",
    "aper_vpt_deep",
    "ease",
)
_EMBEDDED = {
    "ease": ["ease.alpha=0.01", "ease.epochs=5"],
    "l2p": ["l2p.classifier=prototypes", "l2p.head_type=token"],
    "dualprompt": ["dualprompt.classifier=prototypes"],
    "coda_prompt": ["coda_prompt.classifier=prototypes", "coda_prompt.epochs=5"],
}
_RENDITIONS: dict[str, Any] = {
    "data": "renditions",
    "backbone": "vit_nano.scripts",
    "tuner": ["none", "mist", "full"],
    "method": ["simplecil", "ranpac"],
    "seeds": [1993],
    "images_per_class": 40,
    "batch_size": 64,
    "first_task_epochs": 16,
    "epochs": 2,
    "schedule": "cosine",
    "drop": "updates",
    "lr": 0.03,
    "full_lr": 1e-3,
    "later_lr_factor": 0.1,
    "projector_lr": 0.5,
    "strike_factor": 0.5,
}


def _ablation(settings: dict[str, Any], tuner: str, rate: float) -> dict[str, Any]:
    """Return the settings of an ablation before the method whose settings are given."""
    of_mist = ("lr", "projector_lr", "keep", "freeze_rate")
    kept = {name: value for name, value in (_MIST | settings).items() if name not in of_mist}
    own = {"full_lr": _MIST["lr"]} if tuner == "full" else {"lr": _MIST["lr"], "rate": rate}
    objective = {"tune_objective": "ce_cosine", "classifier_lr": _MIST["projector_lr"]}
    return {**_given("imagenet_r"), **kept, **own, **objective, "tuner": [tuner]}


def _given(data: str) -> dict[str, Any]:
    return {"data": data, "classes_per_task": _CLASSES_PER_TASK[data]}


def _made() -> dict[str, dict[str, Any]]:
    presets = {}
    for data in _CLASSES_PER_TASK:
        given = _given(data)
        for method, settings in (("", _RANPAC), ("-simplecil", _SIMPLECIL)):
            for dynamics, own in (("", _PUBLISHED), ("-exact", _EXACT), ("-paper", _PAPER)):
                presets[f"mist/{data}{method}{dynamics}"] = {**given, **_MIST, **settings, **own}
        for host in _HOSTS:
            presets[f"mist/{data}-{host}"] = {**given, **_MIST, **_SIMPLECIL, **_PUBLISHED, "method": [host]}
        own = {"tuner": ["none"], "method": ["ranpac_adapter"], "method_options": _WIDTHS}
        protocol = {name: _MIST[name] for name in ("backbone", "seeds", "class_order_seed")}
        presets[f"mist/{data}-ranpac_adapter"] = {**given, **protocol, **own}
    for method, settings, rate in (("", _RANPAC, 0.05), ("-simplecil", _SIMPLECIL, 0.005)):
        for name, tuner in _ABLATIONS.items():
            presets[f"mist/imagenet_r{method}-ablation-{name}"] = _ablation(settings, tuner, rate)
    for method in _ZHOU_METHODS:
        for data, classes in ZHOU_CLASSES_PER_TASK.items():
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
    presets["embedded/renditions"] = _RENDITIONS
    return presets


PRESETS = _made()
MAIN_JOB = "embedded/renditions"
"""What ``mist run`` does where it is not told on which data."""
# Which tuners use an option of tuning.
_USED = {name: what.tuners or () for name, what in about(TuningOptions).items()}


def above_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given, above those of the preset that they name.

    Where they name neither a preset nor data, the preset is `MAIN_JOB`. Errors as in `preset`.
    """
    name = given.get("preset", None if "data" in given else MAIN_JOB)
    return dict(given) if name is None else preset(name, given)


def preset(name: str, given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return the options that a preset sets, and above them those that are given.

    Of the preset's options of methods, those stay whose method is in the run and that are not given themselves.

    Raises
    ------
    ValueError
        If there is no such preset; the nearest names are suggested. If a given method was published with other settings
        than the preset's, which it would get.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    _require_own_settings(name, given)
    values = {**PRESETS[name], "preset": name, **given}
    if given.get("class_order") and "class_order_seed" not in given:
        values["class_order_seed"] = None
    own, others = PRESETS[name].get("method_options", []), list(given.get("method_options", []))
    named = {text.partition("=")[0] for text in others}
    for text in reversed(own):
        method, _, option = (target := text.partition("=")[0]).partition(".")
        if method in values["method"] and not named & {target, option}:
            others.insert(0, text)
    return values | ({"method_options": others} if own else {})


def _require_own_settings(name: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError if a method would run with what a preset has for its own, where it was published with other."""
    own = PRESETS[name]
    values = {**own, **given}
    if any(values.get(key) != own.get(key) for key in ("data", "dynamics")):
        return  # which is nobody's published protocol
    methods, tuners = (v if isinstance(v, list | tuple) else [v] for v in (values["method"], values["tuner"]))
    for other, settings in PRESETS.items():
        (method, *more) = settings["method"]
        same = all(settings.get(key) == own.get(key) for key in ("data", "dynamics", "strike_factor", "tuner"))
        if not same or more or method not in methods:
            continue
        differing = [
            key
            for key in settings
            if key in _USED
            and key not in given
            and settings[key] != own.get(key)
            and any(each in _USED[key] for each in tuners)
        ]
        if differing:
            theirs, ours = (", ".join(f"{key} {of[key]:g}" for key in differing) for of in (settings, own))
            raise ValueError(
                f"preset {name!r} has {ours}, but {method} was published with {theirs}; run it by itself with --preset "
                f"{other}, or give these options"
            )
