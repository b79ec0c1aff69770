"""The options of a run on which it depends what a step takes and changes: those that `mist cost` has."""

from __future__ import annotations

from typing import Any

from mist_ext.registry import METHODS, TUNERS

NAMES = (
    "backbone",
    "weights",
    "batch_size",
    "tuner",
    "method",
    "method_options",
    "rate",
    "keep",
    "drop",
    "dynamics",
    "in_backward",
    "weight_gradients",
    "whole",
    "layers",
    "lora_rank",
    "lora_layers",
    "score_objective",
    "tune_objective",
    "momentum",
    "precision",
    "compile",
    "checkpointing",
    "device",
)


def defaults() -> dict[str, Any]:
    """Return those that differ from a run's: everything is measured, and nothing is downloaded."""
    return {"weights": "none", "tuner": TUNERS.installed(), "method": list(METHODS)}
