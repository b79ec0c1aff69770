"""Results made by hand: complete records, in which a test says only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mist_ext.report import Experiment, parse_experiment

Matrix = Sequence[Sequence[float]]
PHASES = ("score", "select", "tune", "learn", "evaluate")
TWO_SEEDS = {1: [[90.0], [80.0, 70.0]], 2: [[94.0], [90.0, 80.0]]}
BETTER = {2: [[95.0], [92.0, 84.0]], 1: [[90.0], [90.0, 80.0]], 3: [[0.0], [0.0, 0.0]]}


def task_record(classes: Sequence[int], accuracy_per_task: Sequence[float], **entries: Any) -> dict[str, Any]:
    """A task of a tuner that does nothing; tasks have equal numbers of classes and of test images."""
    return {
        "classes": list(classes),
        "accuracy_seen": sum(accuracy_per_task) / len(accuracy_per_task),
        "top5_seen": 100.0,
        "accuracy_per_task": list(accuracy_per_task),
        "accuracy_per_class": [None] * (len(classes) * len(accuracy_per_task)),
        "seconds": dict.fromkeys(PHASES),
        "peak_memory_bytes": dict.fromkeys(PHASES),
        "selected_fraction": None,
        "kept_fraction": None,
        "changed_fraction": None,
        "changed_fraction_all": None,
        "selection": [],
        "losses": {},
        "warnings": [],
        **entries,
    }


def results(
    tasks: dict[int, Sequence[dict[str, Any]]],
    tuner: str = "none",
    method: str = "simplecil",
    data: str = "digits",
    finished: bool = True,
    **config: Any,
) -> dict[str, Any]:
    """The content of a `results.json`, from each seed's finished tasks."""
    longest = max(map(len, tasks.values()), default=0)
    return {
        "schema": 1,
        "config": {
            "data": {
                "name": data,
                "layout": "digits",
                "split": "",
                "tasks": longest,
                "classes_per_task": 2,
                "class_names": list(map(str, range(200))),
                "evaluated_on": "test",
                "normalize": "none",
            },
            "backbone": {"name": "vit_nano"},
            "tuner": {"name": tuner},
            "method": {"name": method},
            "seeds": list(tasks),
            "class_order_seed": None,
            "deterministic": False,
            "preset": None,
            **config,
        },
        "environment": {},
        "runs": [{"seed": seed, "tasks": list(finished_tasks)} for seed, finished_tasks in tasks.items()],
        **({"summary": {}} if finished else {}),
    }


def of_matrices(
    tuner: str = "none",
    method: str = "simplecil",
    matrices: dict[int, Matrix] | None = None,
    tuned: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The content of a `results.json` from an accuracy matrix per seed; tasks have two classes."""

    def record(number: int, row: Sequence[float]) -> dict[str, Any]:
        seconds = {"score": 1.0, "select": 0.1, "tune": 9.0, "learn": 0.5, "evaluate": 0.25}
        frozen = {**seconds, "score": None, "select": None, "tune": None}
        fractions = {
            "selected_fraction": 0.05,
            "kept_fraction": {"mean": 0.1, "max": 0.11},
            "changed_fraction": {"mean": 0.005, "max": 0.0051 + 0.0001 * number},
            "changed_fraction_all": {"mean": 0.0052, "max": 0.0053},
        }
        measured: dict[str, Any] = {"seconds": seconds, **fractions} if tuned else {"seconds": frozen}
        return task_record([2 * number, 2 * number + 1], row, **measured)

    matrices = matrices or {1: [[90.0], [80.0, 70.0]]}
    tasks = {seed: [record(number, row) for number, row in enumerate(matrix)] for seed, matrix in matrices.items()}
    return results(tasks, tuner, method, **options)


def experiment_of(*args: Any, **options: Any) -> Experiment:
    """The experiment that `of_matrices` is read as."""
    return parse_experiment(of_matrices(*args, **options), "out/experiment/results.json")


def experiments_of_two_tuners() -> list[Experiment]:
    """MIST before two methods, with measurements, then the frozen backbone."""
    methods = ("simplecil", "ranpac")
    tuned = [experiment_of("mist", method, BETTER, tuned=True) for method in methods]
    return tuned + [experiment_of(method=method, matrices=TWO_SEEDS) for method in methods]
