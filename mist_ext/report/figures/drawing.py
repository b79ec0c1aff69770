"""A figure, and the two formats that it is written in."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mist_ext.report.figures.fonts import add_fallbacks

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_MARGIN = 0.12  # inches

# Text stays text, and identifiers depend on the content alone: the same results give the same file.
_SVG: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": "mist_ext"}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Drawing:
    """One figure of a report.

    Attributes
    ----------
    name : str
        Of its files, without an ending.
    title : str
        What it shows.
    description : str
        Its main numbers in a sentence, for those who cannot see it.
    figure : matplotlib.figure.Figure
    digest : str
        Of what it is drawn from (`mist_ext.report.digests`); its files carry it.
    """

    name: str
    title: str
    description: str
    figure: Figure
    digest: str = ""

    def png(self) -> bytes:
        """Return the figure in pixels."""
        return self._saved("png", {"Identifier": self.digest})

    @cached_property
    def svg(self) -> str:
        """The figure in lines and text, with its description as title."""
        from matplotlib import rc_context

        with rc_context(_SVG):
            about = {"Title": self.description, "Identifier": self.digest, **_NO_METADATA}
            return self._saved("svg", about).decode("utf-8")

    def files(self) -> dict[str, bytes | str]:
        """Return both formats, by file name."""
        return {f"{self.name}.png": self.png(), f"{self.name}.svg": self.svg}

    def _saved(self, form: str, metadata: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # one for every character of every name
            self.figure.savefig(buffer, format=form, bbox_inches=self._extent, metadata=metadata)
        return buffer.getvalue()

    @cached_property
    def _extent(self) -> Bbox:
        """What is drawn and a margin: a heat map of fixed shape pushes its labels over the edge of the figure.

        Found once for both formats, and the layout with it, since that takes as long as drawing.
        """
        from matplotlib import rc_context

        add_fallbacks(self.figure)
        if self.figure.axes and (engine := self.figure.get_layout_engine()) is not None:
            engine.execute(self.figure)
        # With any engine, even one that does nothing, matplotlib draws a figure twice to save it once.
        with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            self.figure.set_layout_engine(None)
        return self.figure.get_tightbbox().padded(_MARGIN)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches."""
    # A Figure without pyplot: it belongs to no window system and frees itself.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
