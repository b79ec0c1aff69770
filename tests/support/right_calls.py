"""A right call of every op, which others start from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mist_ext.kernels import reference

Arguments = dict[str, Any]
DROP_APPLY = ("drop_apply_sgd_", "drop_apply_adamw_")
PACKED = ("drop_apply_sgd_, packed", "drop_apply_adamw_, packed")
ON_THE_HOST = ("places", "encode_gaps", "decode_gaps")
IN_PLACE = ("accumulate_", *DROP_APPLY, "mask_", *PACKED, "pack_", "sampled_weight_grad_", "write_values_")
OPS = ("select", *IN_PLACE, *ON_THE_HOST)


def arguments(op: str, device: torch.device) -> Arguments:
    """A call that is right: a float32 matrix selected in part, and a fully selected bfloat16 vector."""
    if op == "accumulate_":
        made: Arguments = {
            "score": [torch.rand(4, 6), torch.rand(10)],
            "grad": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "frozen": [torch.tensor([3, 0, 0], dtype=torch.uint8), None],
            "scale": 0.5,
        }
    elif op == "select":
        made = {"score": [torch.rand(4, 6), torch.rand(10)], "k": [5, 3]}
    elif op == "places":
        return {"count": [4, 10], "first": [3, 2045], "ordinal": [0, 1], "threshold": 40000, "seed": 5, "step": 3}
    elif op == "encode_gaps":
        return {"index": [torch.tensor([0, 3, 999], dtype=torch.int32), torch.arange(5, dtype=torch.int32)]}
    elif op == "decode_gaps":
        code = [torch.tensor([0, 2, 255, 227, 3, 0, 0], dtype=torch.uint8), torch.zeros(5, dtype=torch.uint8)]
        return {"code": code, "count": [3, 5], "size": [1000, 5]}
    elif op == "write_values_":
        param = [torch.arange(1.0, 25.0).view(4, 6), torch.arange(1.0, 11.0).bfloat16()]
        index, then = (torch.tensor(positions, dtype=torch.int32) for positions in ([0, 3, 9, 23], [1, 3, 22]))
        value = torch.rand(4)
        made = {
            "param": param,
            "index": [index, None],
            "value": [value, torch.randn(10).bfloat16()],
            "expected": [param[0].flatten()[index.long()], param[1].clone()],
            "then_index": [then, torch.empty(0, dtype=torch.int32)],
            "then_value": [torch.rand(3), torch.empty(0).bfloat16()],
            "then_expected": [param[0].flatten()[then.long()], torch.empty(0).bfloat16()],
        }
        made["then_expected"][0][1] = value[1]
    else:
        places = reference.places([4, 10], [3, 2045], [0, 1], 40000, 5, 3)
        every = {
            "param": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "grad": [torch.randn(4, 6), torch.randn(10).bfloat16()],
            "grad_output": [torch.randn(70, 4), torch.randn(3, 2).bfloat16()],
            "input": [torch.randn(70, 6), torch.randn(3, 5).bfloat16()],
            "index": [torch.tensor([0, 3, 9, 23], dtype=torch.int32), None],
            "momentum_buffer": [torch.rand(4), torch.rand(10)],
            "exp_avg": [torch.rand(4), torch.rand(10)],
            "exp_avg_sq": [torch.rand(4), torch.rand(10)],
            "updates": [torch.ones(4, dtype=torch.int32), torch.ones(10, dtype=torch.int32)],
            "master": [torch.empty(0), torch.rand(10)],
            "scale_code": [torch.tensor([0, 1, 2, 255], dtype=torch.uint8), None],
            "table": torch.rand(256),
            "ordinal": [0, 1],
            "lr": torch.tensor(0.1),
            "momentum": 0.9,
            "beta1": 0.9,
            "beta2": 0.99,
            "eps": 1e-8,
            "weight_decay": 0.1,
            "correction": torch.rand(2, 5),
            "threshold": 40000,
            "seed": 5,
            "step": torch.tensor(3),
            "found_inf": torch.tensor(0.0),
            "grad_scale": torch.tensor(2.0),
            "first": [3, 2045],
            "packed": torch.randn(int(places[-1])),
            "places": places,
        }
        made = {name: every[name] for name in inspect.signature(function(reference, op)).parameters}
        if op in PACKED:
            made["grad"] = []
        elif op in DROP_APPLY:
            made |= {"packed": None, "places": None}
    return {name: moved(value, device) for name, value in made.items()}


def function(module: Any, op: str) -> Any:
    """The op of a table's entry, which may have a remark behind a comma."""
    return getattr(module, op.partition(",")[0])


def moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value


def tensors(made: Arguments) -> Iterator[Tensor]:
    for value in made.values():
        yield from (t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Tensor))
