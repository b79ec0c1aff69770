"""The README is a page; its example runs as it stands, and tables have the numbers of the committed sweeps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mist_ext.report.table import DASH

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_the_training_loop_of_the_readme() -> None:
    """On a module and a loop that are nobody's but the user's."""
    example = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "SparseSGD(" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 100), torch.nn.ReLU(), torch.nn.Linear(100, 5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = (torch.randn(16, 40), torch.randint(5, (16,)))
    exec(example, {"model": model, "loader": [batch], "loss_function": torch.nn.functional.cross_entropy})
    for name, parameter in model.named_parameters():
        changed = int((parameter != before[name]).sum())
        selected = parameter.numel() * 0.05 if parameter.ndim > 1 else parameter.numel()
        assert changed <= selected
    assert any(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_the_readme_is_one_page_and_leads_to_every_other() -> None:
    assert len(README.splitlines()) <= 130
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert all((ROOT / link).exists() for link in links if "://" not in link)
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert pages <= set(links)


def rows_of(sweep: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "bench" / "results" / sweep / "sweep.json").read_text())["rows"]


def table_below(heading: str, text: str = BENCHMARKS) -> list[list[str]]:
    """The cells of the first table below a heading, its own heading first."""
    assert heading in text
    lines = text.partition(heading)[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [table[0], *table[2:]]


@pytest.mark.parametrize("data", ["digits", "glyphs"])
def test_the_tables_of_tuners_are_the_embedded_sweep(data: str) -> None:
    shown = {(method, tuner): cells for method, tuner, *cells in table_below(f"**{data}**, ")[1:]}
    rows = [row for row in rows_of("embedded") if row["axes"]["data"] == data]
    assert len(rows) == len(shown) == 8
    for row in rows:
        measured = [row[name] for name in ("average_accuracy", "last_accuracy", "forgetting")]
        expected = [f"{spread['mean']:.2f} ± {spread['std']:.2f}" for spread in measured]
        gain, changed = row["gain_over_none"], row["changed_fraction"]
        expected += [f"{gain['mean']:+.2f} ± {gain['std']:.2f}", f"{100 * changed:.2f} %"] if gain else [DASH, DASH]
        assert shown[row["method"], row["axes"]["tuner"]] == expected


def test_the_table_of_the_readme_is_a_part_of_that() -> None:
    shown = table_below("**digits**, ", README)[1:]
    assert shown == [cells for method, *cells in table_below("**digits**, ")[1:] if method == "simplecil"]


def test_the_table_of_every_tuner_before_every_method_is_its_sweep() -> None:
    (_, *tuners), *lines = table_below("**Seven tuners before nine methods**")
    shown = {(method, tuner): cell for method, *cells in lines for tuner, cell in zip(tuners, cells, strict=True)}
    measured = {
        (row["method"], row["axes"]["tuner"]): f"{row['last_accuracy']['mean']:.2f}" for row in rows_of("digits")
    }
    assert shown == measured
