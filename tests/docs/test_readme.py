"""The README is a page that leads to every other, and its example does what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_the_layout_of_the_readme_is_there() -> None:
    tree = README.rpartition("```\ncsrc/")[2].partition("```")[0]
    inner = re.findall(r"(?<=  )([a-z]+(?:/|\.py))(?= )", tree)
    assert len(inner) >= 14
    assert all((ROOT / "mist_ext" / name).exists() for name in inner)
    assert all((ROOT / name).is_dir() for name in re.findall(r"^([a-z_]+)/", tree, re.MULTILINE))


def test_every_page_is_in_the_site() -> None:
    listed = re.findall(r"\w+\.md", (ROOT / "mkdocs.yml").read_text().partition("nav:")[2])
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
