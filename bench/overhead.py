"""What a step costs besides its kernels: Python, dispatcher and checks, over as many tensors as a ViT-B/16 has.

    python bench/overhead.py [--threads N]

The tensors are so small that the kernels have nothing to do, and stay in the caches. torch's own optimisers are timed
beside ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mist_ext import Selection, SparseAdamW, SparseSGD

TENSORS, ROUNDS = 152, 300


def optimizers(device: torch.device) -> dict[str, torch.optim.Optimizer]:
    """Ours and torch's, each over its own tiny tensors with gradients."""

    def tiny() -> list[tuple[str, torch.nn.Parameter]]:
        named = []
        for t in range(TENSORS):
            parameter = torch.nn.Parameter(torch.ones((4, 8) if t % 3 else (8,), device=device))
            parameter.grad = torch.ones_like(parameter)
            named.append((f"tensor{t}", parameter))
        return named

    def values() -> list[torch.nn.Parameter]:
        return [parameter for _, parameter in tiny()]

    selection = Selection.magnitude(tiny(), rate=0.1)
    momentum = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
    return {
        "SparseSGD": SparseSGD(tiny(), selection, **momentum),
        "SparseAdamW": SparseAdamW(tiny(), selection),
        "torch SGD(fused=True)": torch.optim.SGD(values(), fused=True, **momentum),
        "torch AdamW(fused=True)": torch.optim.AdamW(values(), fused=True),
        "torch SGD(foreach=True)": torch.optim.SGD(values(), foreach=True, **momentum),
        "torch AdamW(foreach=True)": torch.optim.AdamW(values(), foreach=True),
    }


def milliseconds(step: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """The median time of a step from warm caches."""
    taken = []
    for _ in range(rounds + 10):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[10:])


def overhead(device: torch.device, rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of a step of each optimiser."""
    return {name: milliseconds(each.step, device, rounds) for name, each in optimizers(device).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads; all by default")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, ms in overhead(torch.device(arguments.device)).items():
        print(f"{name:28} {ms:.3f} ms for {TENSORS} tensors")


if __name__ == "__main__":
    main()
