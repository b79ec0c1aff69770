"""The files that a run leaves in an experiment's folder: what was measured so far, after every task."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import UNSET

import mist_ext
from mist_ext.config import Config, TuningOptions, to_yaml
from mist_ext.config.unused import unused_by
from mist_ext.data import published_splits
from mist_ext.data.stream import Stream
from mist_ext.distributed import ranks
from mist_ext.kernels import compiled
from mist_ext.methods.options import options_by_method
from mist_ext.results import metrics
from mist_ext.results.published import changes, expected
from mist_ext.results.record import SCHEMA, DataRecord, Described, Expected, ExperimentRecord, RunRecord, TaskRecord
from mist_ext.runs.context import RunContext, method_options
from mist_ext.system.files import write_atomically
from mist_ext.system.names import utf8


def environment(device: torch.device) -> dict[str, Any]:
    """Return what results depend on besides the configuration: versions, device, threads, ranks."""
    return {
        "mist_ext": mist_ext.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "backend": compiled.backend(device),
        "instruction_set": compiled.C.instruction_set() if compiled.C else None,
        "threads": torch.get_num_threads(),
        "ranks": ranks.size(),
    }


def experiment_folders(out: Path, data: str, options: Config) -> list[Path]:
    """Return the folders of a run's experiments; ``data`` is the data set's name as it stands in theirs."""
    return [out / f"{data}-{tuner}-{method}" for tuner in options.tuner for method in options.method]


def of_run(context: RunContext, out: Path) -> dict[tuple[str, str], ExperimentResults]:
    """Begin the results of every experiment of a run, by tuner and method."""
    options, env, results = context.options, environment(context.device), {}
    for tuner in options.tuner:
        for method in options.method:
            given = options_by_method(options.method_options, options.method)[method]
            own = dataclasses.replace(
                options,
                tuner=[tuner],
                method=[method],
                method_options=[f"{name}={value!r}" for name, value in given.items()],
            )
            results[tuner, method] = ExperimentResults(out, own, context.source.name, context.streams(0), env)
    return results


class ExperimentResults:
    """Write an experiment's ``results.json`` and ``log.jsonl`` after every task; no finished task is lost.

    Of the ranks of a distributed run, which all have the same content, the first one writes.

    Parameters
    ----------
    out : Path
        The run's folder; the experiment's is made in it.
    options : Config
        With one tuner and one method.
    data : str
        The data set's name, as folders are called after it.
    stream : Stream
        Of any class order.
    environment : dict
    """

    def __init__(self, out: Path, options: Config, data: str, stream: Stream, environment: dict[str, Any]) -> None:
        (self.folder,) = experiment_folders(out, data, options)
        described = _described(options, data, stream)
        self.record = ExperimentRecord(SCHEMA, described, [], environment)
        if ranks.is_first():
            self.folder.mkdir(exist_ok=True)
            write_atomically(self.folder / "config.yaml", to_yaml(options))
            for name in ("log.jsonl", "results.json"):  # of an interrupted run; its checkpoint brings them back
                (self.folder / name).unlink(missing_ok=True)

    def restore(self, runs: list[RunRecord]) -> None:
        """Go back to the tasks that were finished when a checkpoint was written."""
        self.record.runs = runs
        lines = [_log_line(run.seed, number, task) for run in runs for number, task in enumerate(run.tasks)]
        if ranks.is_first():
            write_atomically(self.folder / "log.jsonl", b"".join(lines))
        self._write()

    def matrix(self, seed: int) -> list[list[float]]:
        """Return the accuracy matrix of a seed's finished tasks, in percent."""
        return next((run.matrix for run in self.record.runs if run.seed == seed), [])

    def add_task(self, seed: int, task: TaskRecord) -> None:
        """Add a finished task's record, complete the seed's metrics and write."""
        runs = self.record.runs
        if not runs or runs[-1].seed != seed:
            runs.append(RunRecord(seed, []))
        run = runs[-1]
        # By way of JSON, which checks every number; what is none is null.
        run.tasks.append(msgspec.json.decode(msgspec.json.encode(task), type=TaskRecord))
        matrix, seen = run.matrix, run.seen
        run.average_accuracy = metrics.average_accuracy(seen)
        run.last_accuracy = metrics.last_accuracy(seen)
        run.learning_accuracy = metrics.learning_accuracy(matrix)
        run.forgetting = metrics.forgetting(matrix)
        run.accuracy_matrix = matrix
        self._write()
        if ranks.is_first():
            with open(self.folder / "log.jsonl", "ab") as log:
                log.write(_log_line(seed, len(matrix) - 1, run.tasks[-1]))

    def finish(self) -> None:
        """Write the summary over all seeds."""
        self.record.summary = {name: spread._asdict() for name, spread in self.record.spreads.items()}
        self._write()

    def _write(self) -> None:
        if ranks.is_first():
            text = msgspec.json.format(msgspec.json.encode(self.record), indent=1)
            write_atomically(self.folder / "results.json", text + b"\n")


def _log_line(seed: int, number: int, task: TaskRecord) -> bytes:
    return msgspec.json.encode({"seed": seed, "task": number, **msgspec.to_builtins(task)}) + b"\n"


def _described(options: Config, data: str, stream: Stream) -> Described:
    """Return an experiment's configuration as it stands in results.json."""
    tuning = {field.name: getattr(options, field.name) for field in dataclasses.fields(TuningOptions)}
    if "weight_gradients" in unused_by(options.tuner[0]):
        tuning["weight_gradients"] = "auto"  # which the run has made one of the others, for tuners that have them
    (name,) = options.method
    arguments = {option: value for option, value in method_options(options, name, 0).items() if option != "seed"}
    source = stream.source
    split = published_splits.matching(source.name, len(source.train), len(source.test))
    words = "" if split is None else split.words
    found = expected(options, words)
    return Described(
        data=DataRecord(
            name=utf8(data),
            layout=utf8(source.layout),
            split=words,
            tasks=len(stream),
            classes_per_task=stream.classes_per_task,
            class_names=list(map(utf8, source.class_names)),
            evaluated_on=options.evaluate_on,
            normalize=options.normalize,
            images_per_class=options.images_per_class,
            augmentation=options.augmentation,
        ),
        backbone={"name": options.backbone, "weights": utf8(options.weights)},
        tuner={"name": options.tuner[0], **tuning},
        method={"name": name, **arguments},
        seeds=options.seeds,
        class_order_seed=options.class_order_seed,
        deterministic=options.deterministic,
        preset=options.preset,
        changed={name: utf8(values) for name, values in changes(options).items()} or UNSET,
        expected=Expected(**found) if found else UNSET,
    )
