"""Options, modules and files that the prose of a page names are there."""

from __future__ import annotations

import argparse
import pkgutil
import re
from pathlib import Path

from mist_ext.cli import parsers

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def spans() -> list[tuple[str, str]]:
    """What stands in a page's prose as code, with the page."""
    prose = {page.name: re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL) for page in PAGES}
    return [(page, " ".join(span.split())) for page, text in prose.items() for span in re.findall(r"`([^`]+)`", text)]


def test_the_names_in_prose_are_there() -> None:
    options = {flag for action in _actions(parsers.make()) for flag in action.option_strings}
    for page, span in spans():
        if option := re.match(r"--[a-z][\w-]*", span):
            assert option[0] in options, f"{page}: {span} is no option of mist"
        if re.fullmatch(r"mist_ext(\.\w+)+", span):
            assert pkgutil.resolve_name(span) is not None
        if re.fullmatch(r"(bench|tests|docs|mist_ext|csrc)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{page}: there is no {span}"
        if re.fullmatch(r"[\w/-]+\.(json|md|png)", span) and "/" not in span and "-" in span:
            assert list((ROOT / "bench" / "results").rglob(span)), f"{page}: bench/results has no {span}"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for below in action.choices.values() for inner in _actions(below)]
    return found
