"""The tables of a report in a terminal: every number, in any width."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hand_made import experiment_of, experiments_of_two_tuners
from rich.console import Console

from mist_ext.report import Experiment, table


def printed(experiments: Sequence[Experiment], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(experiments))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_its_terminal_and_shows_every_number(width: int) -> None:
    text = printed(experiments_of_two_tuners(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.search(r"ranpac +none +86\.00 ± 4\.95 +80\.00 ± 7\.07 +83\.50 ± 4\.95 +7\.00 ± 4\.24", text)
    assert re.search(r"none .* – *\n +mist .* \+6\.50 ± 4\.95 \(2\)", text)  # noqa: RUF001
    assert re.search(r"mist +5\.00 +10\.00 +0\.50 +0\.52", text)
    assert re.search(r" 2\.00 +0\.20 +18\.0 +1\.00 +0\.50 +21\.7", text)


def test_a_single_seed_shows_no_deviation() -> None:
    text = printed([experiment_of()], 100)
    assert "2 tasks · 1 seed\n" in text
    assert re.search(r"none +82\.50 +75\.00 +80\.00 +10\.00 ", text)


def test_streams_that_cannot_be_compared_stand_in_tables_of_their_own() -> None:
    text = printed([experiment_of(), experiment_of(data="glyphs"), experiment_of(matrices={1: [[1.0]]})], 100)
    titles = re.findall(r"^\w+ · vit_nano · .*?$", text, flags=re.MULTILINE)
    assert titles == [
        "digits · vit_nano · 1 task · 1 seed",
        "digits · vit_nano · 2 tasks · 1 seed",
        "glyphs · vit_nano · 2 tasks · 1 seed",
    ]


@pytest.mark.parametrize("width", [30, 40, 60])
def test_a_narrow_terminal_gets_more_tables_and_loses_no_number_and_no_name(width: int) -> None:
    experiments = experiments_of_two_tuners()
    text = printed(experiments, width)
    (whole,) = table(experiments).tables.tables
    assert max(map(len, text.splitlines())) <= width
    numbers = [line.cells[column].text for line in whole.lines for part in whole.parts.values() for column in part]
    assert all(number in text for number in numbers)
    assert "…" not in text
