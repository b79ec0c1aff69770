"""Shows the committed results of bench/results in the built site, whose pages reach nothing outside of docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

RESULTS = Path(__file__).parents[1] / "bench" / "results"


def on_files(files: Any, config: Any) -> Any:
    """Add every figure and what pages link to besides, where their links will lead to."""
    for shown in [*sorted(RESULTS.rglob("*.png")), RESULTS / "settings.json", RESULTS / "one_factor.json"]:
        place = f"results/{shown.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, place, abs_src_path=str(shown)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Make links that fit the repository fit the site."""
    return markdown.replace("](../bench/results/", "](results/")
