"""The state of a run that a checkpoint holds: of the seed run at hand, and the finished tasks of all experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

import mist_ext
from mist_ext.results.record import RunRecord
from mist_ext.runs.experiment_results import ExperimentResults

Experiments = Mapping[tuple[str, str], ExperimentResults]  # by tuner and method


class RunState(msgspec.Struct, forbid_unknown_fields=True):
    """What a checkpoint holds."""

    version: str
    data: str
    weight_gradients: Literal["sampled", "dense"]
    seed_run: int
    state: dict[str, Any]
    runs: list[tuple[tuple[str, str], list[RunRecord]]]


def run_state(
    data: str, weight_gradients: str, number: int, state: dict[str, Any], experiments: Experiments
) -> dict[str, Any]:
    """Return a run's state as plain data.

    Parameters
    ----------
    data : str
        The fingerprint of the data set.
    weight_gradients : str
        What the option stands for; ``auto`` would be something else on another device.
    number : int
        Of the seed run at hand.
    state : dict
        Its `SeedRun.state_dict`.
    experiments : mapping of tuple to ExperimentResults
    """
    runs = [(key, msgspec.to_builtins(experiment.record.runs)) for key, experiment in experiments.items()]
    origin = {"version": mist_ext.__version__, "data": data, "weight_gradients": weight_gradients}
    return {**origin, "seed_run": number, "state": state, "runs": runs}


def restore(
    saved: dict[str, Any] | None, seed_runs: int, experiments: Experiments, out: Path
) -> tuple[int, dict[str, Any] | None]:
    """Give the experiments their finished tasks back; return the number of the seed run at hand, and its state.

    Without a saved state that is the first seed run, which has none. ValueError if it is the state of another run.
    """
    if saved is None:
        return 0, None
    try:
        read = msgspec.convert(saved, RunState)
        keys = [key for key, _ in read.runs]
        if read.seed_run not in range(seed_runs) or set(keys) != experiments.keys():
            raise ValueError(f"it is of seed run {read.seed_run} of the experiments {keys}")
    except ValueError as error:
        raise ValueError(
            f"the checkpoint in {out} does not fit this run ({error}); start the run anew with --overwrite"
        ) from error
    for key, runs in read.runs:
        experiments[key].restore(runs)
    return read.seed_run, read.state
