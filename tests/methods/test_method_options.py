"""Options of methods: they reach those that have them, and what is wrong with one is named."""

from __future__ import annotations

from typing import Any

import pytest

from mist_ext import methods
from mist_ext.methods import create
from mist_ext.methods.options import options_by_method
from mist_ext.methods.simplecil import SimpleCIL


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("l2p", "length", "three", r"length of method 'l2p' is 'three', expected a whole number or null"),
        ("l2p", "selected", 5.5, "expected a whole number"),
        ("l2p", "pull", "abc", "expected a finite number"),
        ("dualprompt", "expert_blocks", 2, "expected a list, each a whole number"),
        ("ease", "alpha", float("nan"), "expected a finite number"),
        ("ease", "bottleneck", 2.5, "expected a whole number"),
        ("slca", "temperature", 0, "expected temperature > 0"),
        ("slca", "slowness", -1.0, "expected temperature > 0 and slowness >= 0"),
        ("slca", "alignment_epochs", 0, "alignment_epochs=0: expected 1 or more"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_named(name: str, option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(name, **{option: value})


def test_a_method_with_annotations_for_type_checkers_alone_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(SimpleCIL):
        def __init__(self, scale: "OnlyForCheckers" = 1.0) -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
            super().__init__()
            self.scale = scale

    monkeypatch.setattr(methods, "named", lambda name: Own)
    made: Any = create("own", scale=2.0)
    assert made.scale == 2.0


@pytest.mark.parametrize("name", ["aper_adapter", "ease"])
def test_an_adapter_without_width_is_refused_before_training(name: str) -> None:
    with pytest.raises(ValueError, match="bottleneck=0"):
        create(name, bottleneck=0)


def test_options_reach_the_methods_that_have_them() -> None:
    chosen = options_by_method(["l2p.epochs=7", "epochs=2", "expert_blocks=(2, 3)"], ["simplecil", "l2p", "dualprompt"])
    assert chosen == {"simplecil": {}, "l2p": {"epochs": 7}, "dualprompt": {"epochs": 2, "expert_blocks": (2, 3)}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("epochs", "expected NAME=VALUE"),
        ("epochs=1 epochs=2", "method_options has 'epochs' twice; leave one out"),
        ("epocks=2", "did you mean 'epochs'"),
        ("seed=2", "unknown option"),
        ("l2p.lenght=2", "did you mean 'length'"),
        ("ease.alpha=1", "choose one of: l2p"),
    ],
)
def test_options_that_reach_nothing_are_named(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options_by_method(given.split(), ["l2p"])
