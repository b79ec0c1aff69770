"""The bytes of state that a sparse optimiser keeps for each parameter."""

from __future__ import annotations

import pytest
import torch
from small_networks import KINDS, TABLE, give_gradients
from torch import nn

from mist_ext.selection import Selection


class Transformer(nn.Module):
    """The parameters of a vision transformer of one block, as wide as ViT-B/16: its share of vectors is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = (nn.Parameter(torch.zeros(1, n, 768)) for n in (1, 197))
        self.patch_embed = nn.Conv2d(3, 768, 16, 16)
        block = nn.TransformerEncoderLayer(768, 12, 3072, norm_first=True, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 1, nn.LayerNorm(768), enable_nested_tensor=False)


@pytest.mark.parametrize(
    ("name", "dtype", "codes", "budget"),
    [
        ("sgd", "float32", True, 0.50),
        ("sgd", "bfloat16", True, 0.75),
        ("sgd", "float16", True, 0.75),
        ("adamw", "float32", False, 0.85),
        ("adamw", "bfloat16", True, 1.15),
        ("adamw", "float16", True, 1.15),
    ],
)
def test_state_stays_within_its_budget_of_bytes_a_parameter(device, name, dtype, codes, budget) -> None:
    model = Transformer().to(device, getattr(torch, dtype))
    selection = Selection.random(model.named_parameters(), 0.05, seed=0, whole="bias|norm")
    scale_code = {name: torch.zeros(selection.count(name), dtype=torch.uint8) for name in selection.by_score if codes}
    optimizer = KINDS[name].sparse(model.named_parameters(), selection, scale_code=scale_code, scale_table=TABLE)
    give_gradients(model, 0)
    optimizer.step()
    state = [t for p in model.parameters() for t in optimizer.state[p].values()]
    bytes_ = sum(t.untyped_storage().nbytes() for t in state)
    parameters = sum(p.numel() for p in model.parameters())
    assert len(state) > (1 + codes + len(KINDS[name].state)) * len(selection.by_score)
    assert 0.8 * budget < bytes_ / parameters <= budget
