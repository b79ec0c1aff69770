"""The names of data sets, tuners and methods, and where each is, so that naming one imports nothing.

Packages of others add names by entry points; a name that this package has itself keeps its own meaning.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

# What importing somebody else's module raises where it is not there, not finished, or does not suit what it finds.
_BROKEN = (
    ImportError,
    AttributeError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
    KeyError,
    RuntimeError,
    OSError,
    SystemExit,
)


def declared(group: str) -> dict[str, str]:
    """Return what installed packages declare under ``mist_ext.<group>``: places by name. Nothing is imported."""
    return {entry.name: entry.value for entry in entry_points(group=f"mist_ext.{group}")}


class Registry(dict[str, str]):
    """Places, ``module:attribute``, by name.

    Parameters
    ----------
    kind : str
        What a name is of, as errors call it.
    group : str
        The entry points' group, behind ``mist_ext.``.
    own : mapping
        The names of this package.
    extras : mapping, optional
        The package that a name needs besides, which is also what the extra is called that installs it.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, str], extras: Mapping[str, str] | None = None) -> None:
        super().__init__({**declared(group), **own})
        self.kind, self.group, self.extras = kind, group, extras or {}

    def check(self, name: str) -> None:
        """Raise ValueError for an unknown name, with the nearest ones, or one whose package is not installed."""
        if name not in self:
            raise unknown(self.kind, name, self)
        if name not in self.installed():
            extra = self.extras[name]
            raise ValueError(f'{self.kind} {name!r} needs {extra}, which is not installed: pip install ".[{extra}]"')

    def installed(self) -> list[str]:
        """Return the names but those whose package is not there."""
        extras = self.extras
        return [name for name in self if name not in extras or importlib.util.find_spec(extras[name]) is not None]

    def resolve(self, name: str, base: type | None = None) -> Any:
        """Import what a name stands for.

        Parameters
        ----------
        name : str
        base : type, optional
            What it must be a class derived from; otherwise it must be callable.

        Raises
        ------
        ValueError
            If the name is unknown. If what it stands for cannot be imported, or is something else; the message names
            the package that declares it.
        """
        self.check(name)
        place = self[name]
        if place.startswith("mist_ext."):
            return pkgutil.resolve_name(place)
        what = f"{name!r} of {self._package(name, place)} ({self.group}: {place})"
        try:
            found = pkgutil.resolve_name(place)
        except _BROKEN as error:
            raise ValueError(
                f"{what} cannot be imported: {type(error).__name__}: {error}; mend that package, or leave {name!r} out"
            ) from error
        expected = "a function" if base is None else f"a class derived from {base.__module__}.{base.__name__}"
        if not callable(found) or (base is not None and not (isinstance(found, type) and issubclass(found, base))):
            raise ValueError(f"{what} is {quoted(found)}, expected {expected}; mend that package, or leave it out")
        return found

    def _package(self, name: str, place: str) -> str:
        """Say which package declares a name."""
        for entry in entry_points(group=f"mist_ext.{self.group}"):
            if (entry.name, entry.value) == (name, place) and entry.dist is not None:
                return f"the package {entry.dist.name} {entry.dist.version}"
        return "this program"


# Embedded data sets take no argument, the others the folder below which they look for themselves.
EMBEDDED = {
    "digits": "mist_ext.data.digits:digits",
    "glyphs": "mist_ext.data.glyphs:glyphs",
    "renditions": "mist_ext.data.renditions:renditions",
    "renditions_again": "mist_ext.data.renditions:renditions_again",
    "renditions_dev": "mist_ext.data.renditions:renditions_dev",
}
ON_DISK = {
    "cifar100": "mist_ext.data.cifar100:cifar100",
    "imagenet_r": "mist_ext.data.imagenet_r:imagenet_r",
    "imagenet_a": "mist_ext.data.imagenet_a:imagenet_a",
    "cub200": "mist_ext.data.cub200:cub200",
    "cars196": "mist_ext.data.cars196:cars196",
    "objectnet": "mist_ext.data.objectnet:objectnet",
    "omnibenchmark": "mist_ext.data.omnibenchmark:omnibenchmark",
    "vtab": "mist_ext.data.vtab:vtab",
}
SOURCES = Registry("data set", "data", {**EMBEDDED, **ON_DISK})
FOLDER = "folder:"  # and the path of a tree of class folders, which needs no name
TUNERS = Registry(
    "tuner",
    "tuners",
    {
        "none": "mist_ext.tuners.none:Frozen",
        "mist": "mist_ext.tuners.mist:MIST",
        "random": "mist_ext.tuners.random:Random",
        "magnitude": "mist_ext.tuners.magnitude:Magnitude",
        "gradient": "mist_ext.tuners.gradient:Gradient",
        "published_random": "mist_ext.tuners.published_ablations:PublishedRandom",
        "published_magnitude": "mist_ext.tuners.published_ablations:PublishedMagnitude",
        "published_gradient": "mist_ext.tuners.published_ablations:PublishedGradient",
        "full": "mist_ext.tuners.full:Full",
        "bitfit": "mist_ext.tuners.bitfit:BitFit",
        "lora": "mist_ext.tuners.lora:LoRA",
    },
    extras={"lora": "peft"},
)
METHODS = Registry(
    "method",
    "methods",
    {
        "simplecil": "mist_ext.methods.simplecil:SimpleCIL",
        "ranpac": "mist_ext.methods.ranpac:RanPAC",
        "ranpac_adapter": "mist_ext.methods.ranpac_adapted:RanPACAdapter",
        "ranpac_ssf": "mist_ext.methods.ranpac_adapted:RanPACSSF",
        "ranpac_vpt_deep": "mist_ext.methods.ranpac_adapted:RanPACVPTDeep",
        "fecam": "mist_ext.methods.fecam:FeCAM",
        "aper_adapter": "mist_ext.methods.aper:AperAdapter",
        "aper_ssf": "mist_ext.methods.aper:AperSSF",
        "aper_vpt_shallow": "mist_ext.methods.aper:AperVPTShallow",
        "aper_vpt_deep": "mist_ext.methods.aper:AperVPTDeep",
        "aper_finetune": "mist_ext.methods.aper:AperFinetune",
        "ease": "mist_ext.methods.ease:Ease",
        "slca": "mist_ext.methods.slca:SLCA",
        "finetune": "mist_ext.methods.finetune:Finetune",
        "joint": "mist_ext.methods.joint:Joint",
        "l2p": "mist_ext.methods.l2p:L2P",
        "dualprompt": "mist_ext.methods.dualprompt:DualPrompt",
        "coda_prompt": "mist_ext.methods.coda_prompt:CodaPrompt",
    },
)


def check_data(name: str) -> None:
    """Raise ValueError, with the nearest names, unless it is a data set's or a folder's."""
    if name == FOLDER:
        raise ValueError(f"data is {name!r}, expected {FOLDER}PATH with the path of a folder")
    if name not in SOURCES and not name.startswith(FOLDER):
        raise unknown(SOURCES.kind, name, [*SOURCES, f"{FOLDER}PATH"])
