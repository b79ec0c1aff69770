"""Names in scripts that the default font of figures has not."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import pytest
from matplotlib import get_data_path
from matplotlib.font_manager import fontManager

from mist_ext.report.figures import fonts
from mist_ext.report.figures.drawing import Drawing, new_figure

OWN = [font for font in fontManager.ttflist if font.fname.startswith(get_data_path())]


@pytest.fixture(autouse=True)
def fonts_of_matplotlib(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No fonts but those that matplotlib brings."""
    monkeypatch.setattr(fontManager, "ttflist", OWN)
    fonts._fallbacks.cache_clear()
    yield
    fonts._fallbacks.cache_clear()


def families(words: str) -> list[str]:
    figure = new_figure(2.0, 1.0)
    text = figure.text(0.5, 0.5, words)
    drawing = Drawing("x", "x", "x", figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert words in drawing.svg
        assert drawing.png()
    return text.get_fontfamily()


def test_a_name_gets_a_font_that_has_its_characters() -> None:
    assert families("Vögel") == ["sans-serif"]
    assert families("Vögel Ⓐ") == ["sans-serif", "STIXGeneral"]


def test_a_name_that_no_font_has_is_drawn_without_a_warning() -> None:
    assert families("鳥画") == ["sans-serif"]
    assert families("鳥画 Ⓐ") == ["sans-serif", "STIXGeneral"]


def test_a_font_of_another_weight_is_taken_silently(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    thin = [font if font.name == "DejaVu Sans" else dataclasses.replace(font, weight=200) for font in OWN]
    monkeypatch.setattr(fontManager, "ttflist", thin)
    fonts._characters.cache_clear()
    type(fontManager)._findfont_cached.cache_clear()
    assert families("Ⓐ") == ["sans-serif", "STIXGeneral"]
    assert not caplog.messages
