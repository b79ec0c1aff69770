"""Every number of an experiment in full precision: nested for JSON, and flat for CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from mist_ext.report.comparisons import Comparison
from mist_ext.results.metrics import METRICS, Gain, Spread
from mist_ext.results.record import SCHEMA, Expected


def json_text(comparisons: Sequence[Comparison]) -> str:
    """Return ``summary.json``: all experiments, null for what was not measured."""
    return json.dumps({"schema": SCHEMA, "experiments": [nested(one) for one in comparisons]}, indent=1) + "\n"


def nested(one: Comparison) -> dict[str, Any]:
    """Return an experiment as `summary.json` has it: percent, fractions in 0..1, seconds, bytes."""
    experiment = one.experiment
    return {
        "label": one.label,
        "data": experiment.data,
        "backbone": experiment.backbone,
        "tuner": experiment.tuner,
        "method": experiment.method,
        "tasks": experiment.tasks,
        "seeds": experiment.seeds,
        "incomplete": experiment.gaps,
        **{name: named(experiment.metric(name)) for name in METRICS},
        "gain_over_none": named(one.gain),
        "changed": experiment.changed,
        "expected": msgspec.to_builtins(experiment.expected),
        "accuracy_seen": [named(spread) for spread in experiment.seen_by_task()],
        "top5_seen": [named(spread) for spread in experiment.top5_by_task()],
        "fractions": experiment.fractions,
        "backbone_change": {name: named(spread) for name, spread in experiment.backbone_change.items()},
        "seconds": experiment.seconds,
        "peak_memory_bytes": experiment.peak_memory,
    }


def flat(one: Comparison, diagnosed: bool) -> dict[str, Any]:
    """Return an experiment as a line of a spreadsheet, by column; ``diagnosed`` says whether there are those of one."""
    experiment = one.experiment
    line: dict[str, Any] = {
        name: getattr(experiment, name) for name in ("data", "backbone", "tuner", "method", "tasks")
    }
    line |= {"seeds": " ".join(map(str, experiment.seeds)), "incomplete": "; ".join(experiment.gaps)}
    for name in METRICS:
        line |= _parts(name, experiment.metric(name), Spread)
    line |= _parts("gain_over_none", one.gain, Gain)
    line |= {f"{name}_fraction": value for name, value in experiment.fractions.items()}
    for name, spread in (experiment.backbone_change if diagnosed else {}).items():
        line |= _parts(name, spread, Spread)
    line |= {f"{phase}_seconds": spent for phase, spent in experiment.seconds.items()}
    line |= {f"{phase}_peak_memory_bytes": peak for phase, peak in experiment.peak_memory.items()}
    parts = [part for part in Expected.__struct_fields__ if part != "accuracy_seen"]  # which is a curve
    return line | {f"expected_{part}": getattr(experiment.expected, part, None) for part in parts}


def named(value: Spread | Gain | None) -> dict[str, Any] | None:
    """Return the parts of a number by name."""
    return None if value is None else value._asdict()


def _parts(name: str, value: Spread | Gain | None, kind: type[Spread | Gain]) -> dict[str, Any]:
    return {f"{name}_{part}": getattr(value, part, None) for part in kind._fields}
