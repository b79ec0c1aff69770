"""Plug-ins that use earlier names are told the new ones; those that have such a name of their own are let be."""

from __future__ import annotations

from typing import Any

import pytest

from mist_ext.methods.method import Method
from mist_ext.methods.trained import TrainedMethod
from mist_ext.tuners.mist import MIST
from mist_ext.tuners.random import Random
from mist_ext.tuners.tuner import Tuner


class Learning:
    """The three methods of a classifier by their earlier names, of a class that is none itself."""

    def _learn(self, features, targets): ...

    def _scores(self, features): ...

    _width = 0


@pytest.mark.parametrize(
    ("bases", "body", "told"),
    [
        ((Method,), {"_learn": lambda self, targets: None}, "defines '_learn', which is called 'update' now"),
        ((Method,), {"draws": True}, "defines 'draws', which is called 'seeded' now"),
        ((Learning, Method), {}, "defines '_learn', which is called 'update' now"),
        ((Method, Learning), {}, "defines '_learn', which is called 'update' now"),
        ((TrainedMethod,), {"_features": lambda self: None}, "'_features', which is called 'compute_features' now"),
        ((MIST,), {"whole": "bias"}, "defines 'whole', which is called 'fully_selected' now"),
        ((Tuner,), {"tune": lambda self, pause, track: None}, "tune takes 'pause', .*callbacks.checkpoint_if_due"),
        ((MIST,), {"select": lambda self, tuned, track: None}, "select takes 'track', .*callbacks.progress"),
    ],
)
def test_what_overrides_by_an_earlier_name_is_refused(bases: tuple[type, ...], body: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.*{told}"):
        type("Mine", bases, body)


@pytest.mark.parametrize(
    ("base", "body"),
    [
        (Method, {"sample": lambda self, draws, whole, track, pause, watch: None}),
        (Method, {"__init__": lambda self, track, draws: None, "_features": lambda self: None, "whole": True}),
        (Method, {"_learn": lambda self: None, "update": lambda self, targets: None}),
        (MIST, {"apply": lambda self, pause: None, "watch": lambda self: None, "draws": True}),
    ],
)
def test_a_plug_in_may_use_such_a_name_for_something_else(base: type, body: dict[str, Any]) -> None:
    type("Mine", (base,), body)


def test_what_reads_an_earlier_name_is_told() -> None:
    class Mine(Random):
        def select(self, images, tuned):
            return self.whole

    tuner = Mine.__new__(Mine)
    with pytest.raises(AttributeError, match=r"Mine\.whole is called 'fully_selected' now"):
        tuner.select(None, None)
    with pytest.raises(AttributeError, match=r"Mine\.watch is called 'callbacks\.log' now"):
        tuner.watch  # noqa: B018


def test_what_imports_an_earlier_name_is_told() -> None:
    with pytest.raises(ImportError, match=r"no 'never' any more: .* call self\.callbacks\.progress"):
        from mist_ext.tuners.tuner import never  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'sometimes'"):
        from mist_ext.tuners.tuner import sometimes  # noqa: F401
