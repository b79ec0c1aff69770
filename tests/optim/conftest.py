"""What the tests of the optimisers share."""

from __future__ import annotations

import pytest
from small_networks import KINDS, Kind


@pytest.fixture(params=KINDS.values(), ids=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param
