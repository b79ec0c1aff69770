"""Which cases of a test are run by `pytest` and which by `pytest -m slow` alone, and how many chance draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings


def often(count: int) -> int:
    """Return how many cases chance is to draw: 20 times as many with ``--hypothesis-profile long``."""
    return count * settings().max_examples // settings.get_profile("repeatable").max_examples


def only_long() -> None:
    """Skip what is much the same as what runs anyway, but with ``--hypothesis-profile long``."""
    if often(1) == 1:
        pytest.skip("much the same as others; runs with --hypothesis-profile long")


def first_is_quick(cases: Iterable[Any]) -> list[Any]:
    """Return the cases of a parametrized test, all but the first marked slow."""
    first, *others = cases
    return [first, *map(slow, others)]


def slow(case: Any) -> Any:
    """Return a case of a parametrized test, marked slow."""
    if isinstance(case, type(pytest.param())):
        return pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.slow])
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
