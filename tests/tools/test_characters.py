"""The characters that an embedded backbone is pre-trained on, where the system has the fonts."""

from __future__ import annotations

import characters
import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not characters.NOTO.is_dir(), reason="needs Debian's fonts-noto-core and fonts-noto-extra"),
]


def test_over_a_thousand_classes_of_scripts_that_no_stream_shows() -> None:
    chosen = characters.choose()
    assert len(chosen) == len(set(chosen)) > 1000
    scripts = {characters.script(character) for character in chosen}
    assert len(scripts) > 80
    assert not scripts & set(characters.HELD_OUT)
    bitmaps = characters.render_classes(chosen[:50])
    assert bitmaps.shape == (50, 8, 48, 48)
    assert np.all(bitmaps.flatten(1).max(dim=1).values.numpy() > 128)
