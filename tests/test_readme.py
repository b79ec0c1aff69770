"""The README's example runs as it stands, on a module and a loop that are nobody's but the user's."""

from __future__ import annotations

import re
from pathlib import Path

import torch


def test_the_training_loop_of_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "SparseSGD(" in block)
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
