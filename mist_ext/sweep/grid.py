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
from mist_ext.config.option import option_value, unknown_option
from mist_ext.config.unused import unused
from mist_ext.sweep.point import Point, changing_nothing, make_point, saved_as_asked
from mist_ext.system.bounded_files import read_yaml
from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

# A point has one tuner and one seed, wherever the grid names them, so that points are independent. Methods stay
# together: they learn from one tuned backbone.
_SPLIT = ("tuner", "seeds")
_LISTS = (*_SPLIT, "method")
_OWN = ("out", "overwrite")  # the sweep's business
MOST_VALUES, MOST_POINTS = 1000, 100_000


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

    Tuners and seeds are split into points even where they are fixed or left to their defaults.

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
    fixed, axes = _parts(content, source)
    if data_root is not None:
        if "data_root" in [*axes, *(option for values in axes.values() for option in _mapped(values))]:
            raise ValueError(f"data_root is {data_root!r}, but it is on an axis of {source}; leave one out")
        fixed = {**fixed, "data_root": data_root}
    fixed = {name: _value(name, value, f"fixed.{name}") for name, value in fixed.items()}
    choices = {name: _choices(name, values) for name, values in axes.items()}
    for name in sorted(set(fixed) & {option for axis in choices.values() for _, given in axis for option in given}):
        raise ValueError(f"{name} is both fixed and on an axis of {source}; leave one out")
    methods = _methods(choices.pop("method", None))
    for name in _SPLIT:
        if name not in choices:
            if "preset" in choices and name not in fixed:
                raise ValueError(f"{source} has presets on an axis and names no {name}; add them")
            values = fixed.pop(name, None) or _default(fixed, choices, name)
            _check_different(values, f"fixed.{name}")
            choices[name] = [(value, {name: [value]}) for value in values]
    others = sorted(set(choices) - {"data", *_SPLIT})
    order = [*(["data"] if "data" in choices else []), "tuner", *others, "seeds"]
    if (count := math.prod(len(choices[name]) for name in order)) > MOST_POINTS:
        raise ValueError(f"{source} has {count:,} points, at most {MOST_POINTS:,} are run; give the axes fewer values")
    points: dict[str, Point] = {}
    combinations: Counter[str] = Counter()
    for combination in itertools.product(*(choices[name] for name in order)):
        labels = {name: label for name, (label, _) in zip(order, combination, strict=True)}
        values = _joined([given for _, given in combination], source) | methods
        point = make_point(labels, {**fixed, **values})
        combinations[point.name] += 1
        known = points.setdefault(point.name, point)
        if known != point:
            raise _clash(known, point, choices, source)
    first = choices["seeds"][0][0]
    return Grid(
        {name: [label for label, _ in choices[name]] for name in order},
        [saved_as_asked(point, first) for point in points.values()],
        dict(combinations),
        [name for name in others if _follows(name, points.values())],
        _unused(
            list(points.values()),
            {*fixed, *(name for axis in choices.values() for _, values in axis for name in values)},
        ),
    )


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


def _parts(content: Any, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``fixed`` and ``axes``, of which each name is an option's."""
    form = "expected fixed: {option: value} and axes: {option: [value, value]}"
    if not isinstance(content, dict):
        raise ValueError(f"{source} is {quoted(content)}, {form}")
    options = [field.name for field in dataclasses.fields(Config)]
    for name in content:
        if name in options:
            raise ValueError(f"option {name!r} of {source} stands beside fixed and axes; move it below one of them")
        if name not in ("fixed", "axes"):
            raise unknown(f"part of {source}", str(name), ("fixed", "axes"))
    fixed, axes = content.get("fixed") or {}, content.get("axes") or {}
    for part, given in (("fixed", fixed), ("axes", axes)):
        if not isinstance(given, dict):
            raise ValueError(f"{part} of {source} is {quoted(given)}, {form}")
    named = [*fixed, *axes, *(option for values in axes.values() for option in _mapped(values))]
    for name in named:
        if name in _OWN:
            raise ValueError(f"{name} is no option of a grid; the folder of a sweep is given with --out")
        if name not in options:
            raise unknown_option(f"option of {source}", str(name), options)
    if not axes:
        raise ValueError(f"{source} has no axes, {form}; without axes it is a run, mist run")
    return fixed, axes


def _mapped(values: Any) -> list[str]:
    """Return the options that the mappings on an axis set."""
    if not isinstance(values, list):
        return []
    return [option for value in values if isinstance(value, dict) for option in value]


def _choices(axis: str, values: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return what an axis offers: its labels, and the options that each sets."""
    if not isinstance(values, list) or not values:
        raise ValueError(
            f"axes.{axis} is {quoted(values)}, expected a list of values; one for all points belongs below fixed"
        )
    if len(values) > MOST_VALUES:
        raise ValueError(f"axes.{axis} has {len(values):,} values, at most {MOST_VALUES:,} are taken; give it fewer")
    found = []
    for value in values:
        given = value if isinstance(value, dict) else {axis: value}
        if axis not in given:
            raise ValueError(f"axes.{axis} has {quoted(value)}, which sets no {axis}; add it")
        for label in _several(given[axis]) if axis in _LISTS else [given[axis]]:
            options = {name: _value(name, each, f"axes.{axis}") for name, each in {**given, axis: label}.items()}
            found.append((options[axis][0] if axis in _LISTS else options[axis], options))
    _check_different([label for label, _ in found], f"axes.{axis}")
    return found


def _check_different(labels: list[Any], where: str) -> None:
    if twice := [label for index, label in enumerate(labels) if label in labels[:index]]:
        raise ValueError(f"{where} has {twice[0]!r} twice; leave one out")


def _clash(one: Point, other: Point, choices: dict[str, list[tuple[Any, dict[str, Any]]]], source: str) -> ValueError:
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


def _methods(choices: list[tuple[Any, dict[str, Any]]] | None) -> dict[str, Any]:
    """Return the axis of methods, as one value for all points."""
    if choices is None:
        return {}
    for label, given in choices:
        if len(given) > 1:
            raise ValueError(f"axes.method ties options to {label}, but methods share a run; set them below fixed")
    return {"method": [label for label, _ in choices]}


def _value(name: str, value: Any, where: str) -> Any:
    """Return an option's value in its type, as `mist run` takes it; one value may stand for a list of one."""
    return option_value(Config, name, _several(value) if name in _LISTS else value, f"{where} has", f" for {name}")


def _several(value: Any) -> list[Any]:
    """Return a list, of which none of the elements is one."""
    return [one for each in value for one in _several(each)] if isinstance(value, list) else [value]


def _default(fixed: dict[str, Any], choices: dict[str, list[tuple[Any, dict[str, Any]]]], name: str) -> Any:
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
