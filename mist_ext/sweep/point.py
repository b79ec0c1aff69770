"""One run of a sweep: its options, and the name of its folder. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from mist_ext.config import Config, presets
from mist_ext.config.option import about
from mist_ext.config.unused import unused

_LONGEST_NAME = 120  # bytes, without the seed; file systems take 255


@dataclass(frozen=True)
class Point:
    """One run of a sweep: one tuner, one seed, all methods.

    Attributes
    ----------
    name : str
        Of its folder. It follows from the point's own values, so it stays when an axis gets more of them. A long one
        is cut, and has a digest of the whole.
    axes : dict
        Its values on the axes, the data set first, then the tuner, without the seed and what changes nothing there.
    options : Config
    """

    name: str
    axes: dict[str, Any]
    options: Config

    @property
    def seed(self) -> int:
        return self.options.seeds[0]

    @property
    def tunes(self) -> bool:
        """Whether a backbone is tuned."""
        return bool(self.axes["tuner"] != "none")


def make_point(labels: dict[str, Any], values: dict[str, Any]) -> Point:
    """Return the run at a point of the grid."""
    options = Config(**presets.above_preset(values))
    axes = {"data": options.data, **{name: label for name, label in labels.items() if name != "seeds"}}
    try:
        options.check()
        if options.shard:
            raise ValueError(
                "shard is True, but each run of a sweep is a single process, so there is nothing to spread the "
                "backbone over; leave shard out, or start this run alone by torchrun -m mist_ext run --shard"
            )
    except ValueError as error:
        point = ", ".join(f"{name} {label}" for name, label in labels.items())
        raise ValueError(f"{error} (at {point})") from error
    idle = changing_nothing(options)  # where points differ in these alone, they are one run
    axes = {name: label for name, label in axes.items() if name not in idle}
    defaults = Config()
    options = dataclasses.replace(options, **{name: getattr(defaults, name) for name in idle})
    words = [f"{name}={label}" for name, label in axes.items() if name not in ("data", "tuner")]
    name = _folder_name("-".join([str(axes["data"]), axes["tuner"], *words]))
    return Point(f"{name}-seed={options.seeds[0]}", axes, options)


def changing_nothing(options: Config) -> set[str]:
    """Return the names of all options that change nothing at a point, whatever their values."""
    return set(unused(options, about(Config)))


def _folder_name(values: str) -> str:
    """Return a point's values as the name of a folder, without the seed."""
    name = re.sub(r"[^\w.+=-]+", "_", values)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(values.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}-{digest}"


def saved_as_asked(point: Point, first: int) -> Point:
    """Return the point as it saves: ``save: first`` means the first seed of the sweep."""
    if point.options.save != "first" or point.seed == first:
        return point
    return dataclasses.replace(point, options=dataclasses.replace(point.options, save="none"))
