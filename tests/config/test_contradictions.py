from __future__ import annotations

import re
from typing import Any

import pytest

from mist_ext.config import TuningOptions
from mist_ext.config.contradictions import CONTRADICTIONS, Contradiction


def given(name: str, value: Any) -> dict[str, Any]:
    return {name: "attn" if name == "layers" else value}


@pytest.mark.parametrize("pair", CONTRADICTIONS, ids=lambda pair: f"{pair.name}-{pair.other}-{pair.its_value}")
def test_two_values_that_exclude_each_other_are_refused_and_each_alone_is_taken(pair: Contradiction) -> None:
    one, other = given(pair.name, pair.value), given(pair.other, pair.its_value)
    for alone in (one, other):
        TuningOptions(**alone).check()
    with pytest.raises(ValueError, match=rf"{pair.name} is .+, but {pair.other} is .+: {re.escape(pair.why)}; "):
        TuningOptions(**one, **other).check()
