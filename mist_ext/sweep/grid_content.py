"""The content of a grid file, checked: what is fixed, and which options each value on an axis sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mist_ext.config import Config, presets
from mist_ext.config.option import option_value, unknown_option
from mist_ext.system.names import quoted
from mist_ext.system.suggest import unknown

# A point has one tuner and one seed, wherever the grid names them, so that points are independent. Methods stay
# together: they learn from one tuned backbone.
SPLIT = ("tuner", "seeds")
_LISTS = (*SPLIT, "method")
_OWN = ("out", "overwrite")  # the sweep's business
MOST_VALUES = 1000

Choices = list[tuple[Any, dict[str, Any]]]  # of an axis: labels, and the options that each sets


def fixed_and_axes(content: Any, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
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
    named = [*fixed, *axes, *(option for values in axes.values() for option in mapped(values))]
    for name in named:
        if name in _OWN:
            raise ValueError(f"{name} is no option of a grid; the folder of a sweep is given with --out")
        if name not in options:
            raise unknown_option(f"option of {source}", str(name), options)
    if not axes:
        raise ValueError(f"{source} has no axes, {form}; without axes it is a run, mist run")
    return fixed, axes


def mapped(values: Any) -> list[str]:
    """Return the options that the mappings on an axis set."""
    if not isinstance(values, list):
        return []
    return [option for value in values if isinstance(value, dict) for option in value]


def choices_of(axis: str, values: Any) -> Choices:
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
            options = {name: value_of(name, each, f"axes.{axis}") for name, each in {**given, axis: label}.items()}
            found.append((options[axis][0] if axis in _LISTS else options[axis], options))
    check_different([label for label, _ in found], f"axes.{axis}")
    return found


def check_different(labels: list[Any], where: str) -> None:
    if twice := [label for index, label in enumerate(labels) if label in labels[:index]]:
        raise ValueError(f"{where} has {twice[0]!r} twice; leave one out")


def of_preset(label: str | None, given: dict[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield a preset once for each tuner that it has, or that is given beside it."""
    for tuner in given.get("tuner") or presets.above_preset({"preset": label}).get("tuner", Config().tuner):
        yield label, {**given, "tuner": [tuner]}


def methods_of(choices: Choices | None) -> dict[str, Any]:
    """Return the axis of methods, as one value for all points."""
    if choices is None:
        return {}
    for label, given in choices:
        if len(given) > 1:
            raise ValueError(f"axes.method ties options to {label}, but methods share a run; set them below fixed")
    return {"method": [label for label, _ in choices]}


def value_of(name: str, value: Any, where: str) -> Any:
    """Return an option's value in its type, as `mist run` takes it; one value may stand for a list of one."""
    return option_value(Config, name, _several(value) if name in _LISTS else value, f"{where} has", f" for {name}")


def _several(value: Any) -> list[Any]:
    """Return a list, of which none of the elements is one."""
    return [one for each in value for one in _several(each)] if isinstance(value, list) else [value]
