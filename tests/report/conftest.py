"""Results with everything that a run can record, for the reports' tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hand_made import results, task_record

BLOCK = {"norm1.weight": 8, "norm1.bias": 8, "attn.qkv.weight": 192, "attn.qkv.bias": 24, "mlp.fc1.weight": 256}


def tensors(layers: int) -> dict[str, int]:
    """Names and sizes as a small timm ViT has them."""
    blocks = {f"blocks.{layer}.{name}": size for layer in range(layers) for name, size in BLOCK.items()}
    return {"cls_token": 8, "patch_embed.proj.weight": 384, **blocks, "norm.weight": 8}


def selection(tuner: str, layers: int) -> list[dict[str, Any]]:
    """A twentieth of each matrix; the later a layer, the higher its score."""
    if tuner == "none":
        return []
    sizes = tensors(layers)
    weights = {name: size * (1 + index) for index, (name, size) in enumerate(sizes.items())}
    whole = tuner == "full"
    return [
        {
            "name": name,
            "entries": size,
            "selected": size if whole or size < 100 else size // 20,
            "score_share": None if whole else weights[name] / sum(weights.values()),
            "score_selected": None if whole else 1.0 if size < 100 else 0.4,
        }
        for name, size in sizes.items()
    ]


def make(
    tuner: str = "mist",
    method: str = "simplecil",
    tasks: int = 3,
    classes_per_task: int = 2,
    seeds: tuple[int, ...] = (1, 2),
    layers: int = 2,
    same_order: bool = False,
    **config: Any,
) -> dict[str, Any]:
    """The content of a `results.json`; class ``c`` loses ``c`` points a task, and each seed has its own order."""
    runs = {}
    for seed in seeds:
        order = list(range(tasks * classes_per_task))
        random.Random(0 if same_order else seed).shuffle(order)
        runs[seed] = []
        for task in range(tasks):
            seen = order[: (task + 1) * classes_per_task]
            per_class = [
                max(0.0, 95.0 - label / 4 * (task - index // classes_per_task)) for index, label in enumerate(seen)
            ]
            parts = [per_class[start : start + classes_per_task] for start in range(0, len(seen), classes_per_task)]
            runs[seed].append(
                task_record(
                    seen[-classes_per_task:],
                    [sum(part) / len(part) for part in parts],
                    accuracy_per_class=per_class,
                    seconds={"score": 2.0, "select": 0.25, "tune": 9.0, "learn": 1.5, "evaluate": 0.75 * (task + 1)},
                    peak_memory_bytes={"score": 2 << 30, "select": None, "tune": 3 << 30, "learn": 1 << 30},
                    selection=selection(tuner, layers),
                )
            )
    environment = {"torch": "2.15.0", "device": "cpu", "threads": 2, "instruction_set": None}
    return results(runs, tuner, method, **config) | {"environment": environment}


@pytest.fixture(scope="session")
def result() -> Callable[..., dict[str, Any]]:
    """Makes the content of a `results.json`."""
    return make
