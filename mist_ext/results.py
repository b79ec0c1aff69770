"""The files that a run leaves in a cell's folder: what was measured so far, after every task."""

from __future__ import annotations

import json
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

import mist_ext
from mist_ext import compiled, metrics
from mist_ext.files import write_atomically

SCHEMA = 1
METRICS = ("average_accuracy", "last_accuracy", "forgetting")


def environment(device: torch.device) -> dict[str, Any]:
    """What a figure depends on besides the configuration."""
    return {
        "mist_ext": mist_ext.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": compiled.backend(device),
        "instruction_set": compiled.C.instruction_set() if compiled.C else None,
        "threads": torch.get_num_threads(),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: allocated on the GPU, else resident in the process, at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class CellResults:
    """One cell's ``results.json`` and ``log.jsonl``, written after every task: an interruption loses nothing finished.

    Parameters
    ----------
    folder : Path
    config : dict
    environment : dict
    """

    def __init__(self, folder: Path, config: dict[str, Any], environment: dict[str, Any]) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {"schema": SCHEMA, "config": config, "environment": environment, "runs": []}

    def add_task(self, seed: int, task: dict[str, Any], counts: list[int]) -> float:
        """Add a finished task's record, complete its metrics and write.

        Parameters
        ----------
        seed : int
        task : dict
            The record, with ``accuracy_per_task`` in percent.
        counts : list of int
            Test images of each of the seed's tasks so far.

        Returns
        -------
        float
            The accuracy on all classes seen, in percent.
        """
        runs = self.content["runs"]
        if not runs or runs[-1]["seed"] != seed:
            runs.append({"seed": seed, "tasks": []})
        run = runs[-1]
        matrix = [record["accuracy_per_task"] for record in run["tasks"]] + [task["accuracy_per_task"]]
        seen = metrics.accuracy_seen(matrix, counts)
        run["tasks"].append({"classes": task.pop("classes"), "accuracy_seen": seen[-1], **task})
        run["average_accuracy"] = metrics.average_accuracy(seen)
        run["last_accuracy"] = metrics.last_accuracy(seen)
        run["forgetting"] = metrics.forgetting(matrix)
        run["accuracy_matrix"] = matrix
        self._write()
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"seed": seed, "task": len(matrix) - 1, **run["tasks"][-1]}) + "\n")
        return seen[-1]

    def finish(self) -> None:
        """Write the summary over all seeds."""
        self.content["summary"] = {}
        for name in METRICS:
            mean, std = metrics.mean_std([run[name] for run in self.content["runs"]])
            self.content["summary"][name] = {"mean": mean, "std": std}
        self._write()

    def _write(self) -> None:
        write_atomically(self.folder / "results.json", json.dumps(self.content, indent=1) + "\n")
