"""The bias of AdamW's averages, corrected by each entry's own number of updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mist_ext.optim import SparseAdamW
from mist_ext.optim.adamw import LARGEST_BETA, bias_correction
from mist_ext.selection import Selection

CPU = torch.device("cpu")


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 0.0), (0.0, 0.95), (1e-3, 0.9), (0.9, LARGEST_BETA)])
def test_bias_correction_reaches_one(betas: tuple[float, float]) -> None:
    table = bias_correction(*betas, CPU)
    assert table.dtype == torch.float32
    assert table[:, 0].tolist() == [0, 0]
    assert table[:, -1].tolist() == [1, 1]
    assert table.nbytes < 7e6
    n = np.arange(table.shape[1])
    for row, beta, power in zip(table.numpy(), betas, (1, 0.5), strict=True):
        exact = -np.expm1(n * np.log(beta)) if beta else np.minimum(n, 1)
        np.testing.assert_array_max_ulp(row, (exact**power).astype(np.float32), maxulp=1)
        assert (np.diff(row) >= 0).all()


def test_the_first_step_that_keeps_an_entry_moves_it_by_the_learning_rate() -> None:
    """However late it comes: its averages' bias is corrected by its own updates."""
    p = nn.Parameter(torch.zeros(1000))
    optimizer = SparseAdamW([("p", p)], Selection.whole([("p", p)]), lr=0.1, weight_decay=0.0, keep=0.02)
    seen = torch.zeros(1000, dtype=torch.bool)
    for step in range(100):
        p.grad = torch.full((1000,), 0.5 + step)
        optimizer.step()
        first = (p.detach() != 0) & ~seen
        torch.testing.assert_close(p.detach()[first], torch.full((int(first.sum()),), -0.1))
        seen |= first
    assert 800 < seen.sum() < 950
