"""torch's GradScaler and the sparse optimisers: an infinite step is none."""

from __future__ import annotations

import torch
from small_networks import give_gradients, network, selected


def test_an_infinite_step_changes_nothing_and_is_not_counted(kind, device, same_bits) -> None:
    models = [network(device=device) for _ in range(2)]
    scaled, plain = (kind.sparse(m.named_parameters(), selected(m), lr=0.1, keep=0.5) for m in models)
    scaler = torch.amp.GradScaler(device.type, init_scale=3.0 * 2**10, growth_interval=100)
    for step in range(5):
        for model in models:
            give_gradients(model, step)
        scale = scaler.scale(torch.ones((), device=device))
        for p in models[0].parameters():
            p.grad *= scale
        before = [t.clone() for p in models[0].parameters() for t in (p, *scaled.state[p].values())]
        if step == 2:
            models[0][0].bias.grad[0] = float("inf")
        scaler.step(scaled)
        scaler.update()
        if step == 2:
            after = [t for p in models[0].parameters() for t in (p, *scaled.state[p].values())]
            assert all(same_bits(a, b) for a, b in zip(before, after, strict=True))
            assert scaled.steps == 2
        else:
            plain.step()
    assert scaled.steps == plain.steps == 4
    assert scaler.get_scale() == 3.0 * 2**9
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
