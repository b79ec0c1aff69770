"""A grid file: which options are fixed and which are varied, and the runs that follow. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mist_ext.config import Config, presets
from mist_ext.config.unused import unused
from mist_ext.sweep.grid_content import (
    SPLIT,
    Choices,
    check_different,
    choices_of,
    fixed_and_axes,
    mapped,
    methods_of,
    of_preset,
    value_of,
)
from mist_ext.sweep.point import Point, changing_nothing, make_point, saved_as_asked
from mist_ext.system.bounded_files import read_yaml
from mist_ext.system.names import quoted

MOST_POINTS = 100_000


@dataclass(frozen=True)
class Grid:
    """The points of a grid file.

    Attributes
    ----------
    axes : dict of str to list
        The labels of each axis, those that are always there included.
    points : list of Point
        Each run once.
    combinations : dict of str to int
        How many combinations of axes and seeds each run stands for, by its name; of all runs, also where ``points``
        are a part of them (`only`).
    redundant : list of str
        The axes whose value follows from data set, methods and tuner, as that of presets does.
    unused : list of str
        A sentence for each option of the grid that changes no point.
    """

    axes: dict[str, list[Any]]
    points: list[Point]
    combinations: dict[str, int]
    redundant: list[str] = dataclasses.field(default_factory=list)
    unused: list[str] = dataclasses.field(default_factory=list)

    @property
    def experiments(self) -> int:
        """How many combinations of axes, methods and seeds there are."""
        return sum(len(point.options.method) * self.combinations[point.name] for point in self.points)

    @property
    def tuned_experiments(self) -> int:
        """How many of them have another tuner than ``none``."""
        return self.only(lambda point: point.tunes).experiments

    @property
    def tunings(self) -> int:
        """How many runs tune a backbone."""
        return sum(point.tunes for point in self.points)

    def only(self, wanted: Callable[[Point], bool]) -> Grid:
        """Return a grid of the points that are wanted."""
        return dataclasses.replace(self, points=[point for point in self.points if wanted(point)])


def read_grid(path: str | os.PathLike[str], data_root: str | None = None) -> Grid:
    """Read a grid file, and check every point of it.

    Under ``fixed`` stand options with one value for all points, under ``axes`` options with a list of values. A value
    on an axis may be a mapping of options that go together, the axis' own among them::

        fixed: {epochs: 6, method: [simplecil, ranpac]}
        axes:
          data: [digits, {data: glyphs, projector_lr: 0.5}]
          tuner: [none, mist]
          seeds: [1, 2, 3]

    Tuners and seeds are split into points even where they are fixed or left to their defaults. Where presets are on an
    axis and no tuner is named, each has its own.

    Parameters
    ----------
    path : path-like
    data_root : str, optional
        Takes the place of the file's own, since data lies elsewhere on each machine.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For an option that does not exist, a value of another type or out of range, or a file of another form.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"grid {path} is no file; give a YAML file with fixed and axes")
    try:
        return make_grid(read_yaml(path), str(path), data_root)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{error} (in grid {path})") from error


def make_grid(content: Any, source: str = "the grid", data_root: str | None = None) -> Grid:
    """Return the grid of a file's content; errors as in `read_grid`, where ``source`` names it."""
    fixed, axes = fixed_and_axes(content, source)
    if data_root is not None:
        if "data_root" in [*axes, *(option for values in axes.values() for option in mapped(values))]:
            raise ValueError(f"data_root is {data_root!r}, but it is on an axis of {source}; leave one out")
        fixed = {**fixed, "data_root": data_root}
    fixed = {name: value_of(name, value, f"fixed.{name}") for name, value in fixed.items()}
    choices = {name: choices_of(name, values) for name, values in axes.items()}
    for name in sorted(set(fixed) & {option for axis in choices.values() for _, given in axis for option in given}):
        raise ValueError(f"{name} is both fixed and on an axis of {source}; leave one out")
    methods = methods_of(choices.pop("method", None))
    if "preset" in choices and "tuner" not in fixed and "tuner" not in choices:
        choices["preset"] = [each for label, given in choices["preset"] for each in of_preset(label, given)]
    by_preset = any("tuner" in given for _, given in choices.get("preset", ()))
    for name in SPLIT:
        if name not in choices and not (name == "tuner" and by_preset):
            if "preset" in choices and name not in fixed:
                raise ValueError(f"{source} has presets on an axis and names no {name}; add them")
            values = fixed.pop(name, None) or _default(fixed, choices, name)
            check_different(values, f"fixed.{name}")
            choices[name] = [(value, {name: [value]}) for value in values]
    others = sorted(set(choices) - {"data", *SPLIT})
    order = [*(name for name in ("data", "tuner") if name in choices), *others, "seeds"]
    if (count := math.prod(len(choices[name]) for name in order)) > MOST_POINTS:
        raise ValueError(f"{source} has {count:,} points, at most {MOST_POINTS:,} are run; give the axes fewer values")
    points: dict[str, Point] = {}
    combinations: Counter[str] = Counter()
    for combination in itertools.product(*(choices[name] for name in order)):
        labels = {name: label for name, (label, _) in zip(order, combination, strict=True)}
        values = _joined([given for _, given in combination], source) | methods
        point = make_point({"tuner": values["tuner"][0], **labels}, {**fixed, **values})
        combinations[point.name] += 1
        known = points.setdefault(point.name, point)
        if known != point:
            raise _clash(known, point, choices, source)
    first = choices["seeds"][0][0]
    axes = {name: _different(label for label, _ in choices[name]) for name in order}
    if "tuner" not in axes:
        tuners = _different(point.axes["tuner"] for point in points.values())
        axes = {**{name: axes[name] for name in axes if name == "data"}, "tuner": tuners} | axes
    return Grid(
        axes,
        [saved_as_asked(point, first) for point in points.values()],
        dict(combinations),
        [name for name in others if _follows(name, points.values())],
        _unused(
            list(points.values()),
            {*fixed, *(name for axis in choices.values() for _, values in axis for name in values)},
        ),
    )


def _different(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += [] if value in found else [value]
    return found


def _follows(axis: str, points: Iterable[Point]) -> bool:
    """Return whether an axis' value is the same wherever data set, methods and tuner are."""
    values: dict[Any, set[str]] = {}
    for point in points:
        known = values.setdefault((point.options.data, *point.options.method, point.axes["tuner"]), set())
        known.add(repr(point.axes.get(axis)))
    return all(len(known) == 1 for known in values.values())


def _unused(points: list[Point], given: set[str]) -> list[str]:
    """Say of each option that is given and that no point uses who would."""
    everywhere = set.intersection(*(set(unused(point.options, given)) for point in points))
    tuners = list(dict.fromkeys(point.axes["tuner"] for point in points))
    return list(unused(dataclasses.replace(points[0].options, tuner=tuners), everywhere).values())


def _clash(one: Point, other: Point, choices: dict[str, Choices], source: str) -> ValueError:
    """Return the error for two points of one name: what sets them apart is on an axis that their tuner does not use."""
    tuner = one.axes["tuner"]
    ours, theirs = dataclasses.asdict(one.options), dataclasses.asdict(other.options)
    differing = [name for name in ours if ours[name] != theirs[name]]
    for axis in set(choices) & changing_nothing(one.options):
        tied = [name for name in differing if name != axis and any(name in given for _, given in choices[axis])]
        if tied:
            return ValueError(
                f"axes.{axis} of {source} ties {tied[0]} to {axis}, which changes nothing with tuner {tuner!r} on "
                f"{quoted(one.axes['data'])}: its points would differ in {tied[0]} alone; give {tied[0]} an axis of "
                "its own"
            )
    return ValueError(f"two points of {source} would share the folder {one.name}; use values that differ more")


def _default(fixed: dict[str, Any], choices: dict[str, Choices], name: str) -> Any:
    """Return what `mist run` takes for an option that the grid does not name."""
    varied = {option for axis in choices.values() for _, given in axis for option in given}
    below = presets.above_preset(dict.fromkeys(varied & {"data"}) | fixed)
    return below.get(name, getattr(Config(), name))


def _joined(parts: Iterable[dict[str, Any]], source: str) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in parts:
        if both := sorted(set(joined) & set(part)):
            raise ValueError(f"{both[0]} is on two axes of {source}; leave one out")
        joined |= part
    return joined
