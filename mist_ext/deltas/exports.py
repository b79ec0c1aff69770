"""A delta in the layouts of other projects."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mist_ext.deltas.change import Change
from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.vectors import Vector, task_vector

PREFIX = "base_model.model."  # of every name in an adapter of peft


def indices_and_values(delta: TaskDelta) -> dict[str, Tensor]:
    """Return a delta as trainers send changed weights to inference engines: positions and new values.

    Returns
    -------
    dict of Tensor
        For each tensor ``NAME.indices``, int32 ``[k]``, ascending flat positions, and ``NAME.values``, ``[k]``, the
        values after the task in the tensor's dtype; where every entry is stored, ``NAME`` alone with the whole tensor.
    """
    tensors: dict[str, Tensor] = {}
    for name, change in delta.changes.items():
        if change.positions is None:
            tensors[name] = change.new.view(change.shape)
        else:
            tensors[f"{name}.indices"], tensors[f"{name}.values"] = change.positions.int(), change.new
    return tensors


def shira(delta: TaskDelta) -> tuple[dict[str, Tensor], dict[str, Any], TaskDelta]:
    """Return a delta as an adapter of peft's SHiRA (arXiv 2406.13175), and what such an adapter cannot hold.

    SHiRA adds sparse values to the weights of linear layers, as many in a layer of m inputs and n outputs as
    ``r (m + n)``, with one r for all layers. So r is the smallest that has room for every layer, and what is not needed
    holds zeros.

    Returns
    -------
    dict of Tensor
        For ``adapter_model.safetensors``: for each layer ``shira_weight``, float32 ``[r (m + n)]``, and
        ``shira_indices``, int32 ``[2, r (m + n)]``.
    dict
        For ``adapter_config.json``.
    TaskDelta
        Of the same base: the changes of everything but matrices named ``weight``. It is to be applied first.

    Raises
    ------
    ValueError
        If the delta is forward-only; or no matrix changes; or so much of one changes, where another is small, that no r
        fits: the message names both.
    """
    vectors = task_vector(delta, "the delta")
    layers = {
        name.removesuffix(".weight"): change
        for name, change in delta.changes.items()
        if len(change.shape) == 2 and name.endswith(".weight") and name in vectors
    }
    if not layers:
        raise ValueError("the delta changes no weight of a linear layer, and SHiRA holds nothing else")
    needs = {name: math.ceil(change.entries / sum(change.shape)) for name, change in layers.items()}
    most = max(needs, key=lambda name: needs[name])
    r = needs[most]
    for name, change in layers.items():
        if r * sum(change.shape) > change.numel:
            raise ValueError(
                f"{most!r} changes {layers[most].entries:,} entries, which takes r = {r}; but peft allows "
                f"{name!r} of shape {list(change.shape)} no such r, since r (m + n) would be more than its "
                f"{change.numel:,} entries. Use another form, such as state_dict"
            )
    tensors = {}
    for name, change in layers.items():
        indices, values = _padded(change, vectors[f"{name}.weight"], r * sum(change.shape))
        tensors[f"{PREFIX}{name}.shira_indices"], tensors[f"{PREFIX}{name}.shira_weight"] = indices, values
    config = {
        "peft_type": "SHIRA",
        "r": r,
        "mask_type": "random",
        "target_modules": sorted(layers),
        "fan_in_fan_out": False,
        "init_weights": True,
        "inference_mode": True,
        "task_type": None,
        "base_model_name_or_path": None,
        "modules_to_save": None,
    }
    rest = {name: change for name, change in delta.changes.items() if name.removesuffix(".weight") not in layers}
    return tensors, config, TaskDelta(rest, delta.base_digest, info=delta.info)


def _padded(change: Change, vector: Vector, count: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of a matrix's entries, and what is added to them, with zeros elsewhere up to a count."""
    first = torch.arange(count)  # enough of these are free; the whole matrix may be larger than what a file fills
    spare = first[~torch.isin(first, vector.positions, assume_unique=True)][: count - len(vector.positions)]
    flat = torch.cat([vector.positions, spare])
    values = torch.zeros(count, dtype=torch.float32)
    values[: len(vector.positions)] = vector.values.float()
    order = flat.argsort()
    columns = change.shape[1]
    return torch.stack([flat // columns, flat % columns])[:, order].int(), values[order]
