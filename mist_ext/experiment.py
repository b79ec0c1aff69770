"""The configuration, and the task loop: stream x backbone x tuner x method x seed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import typing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn

from mist_ext import backbones, data, methods, report, tuners
from mist_ext.data.stream import Stream, Task, TaskImages, batches
from mist_ext.draws import draw_seed
from mist_ext.files import write_atomically
from mist_ext.options import option
from mist_ext.progress import Progress
from mist_ext.results import CellResults, environment, peak_memory
from mist_ext.suggest import unknown
from mist_ext.tuners.tuner import IN_BACKWARD, Tuner, TuningOptions

EVALUATION_BATCH = 256  # images; only speed and memory depend on it


@dataclass
class Config(TuningOptions):
    """Everything that a run depends on; the same fields serve flags, YAML and Python."""

    in_backward: bool | None = option(None, IN_BACKWARD)
    data: str = option("digits", "Data set: digits, glyphs.")
    classes_per_task: int | None = option(None, "New classes a task; by default the data set's own split.")
    evaluate_on: Literal["test", "validation"] = option(
        "test", "validation: a quarter of the training images is held out for it, and the test images are not read."
    )
    backbone: str = option("vit_nano", "vit_nano, or the name of any timm model that gives a feature vector.")
    weights: str = option("pretrained", "pretrained, none, or a local .safetensors, .npz or .pth file.")
    tuner: list[str] = option(["none", "mist"], "How the backbone is adapted: none, mist, full, random.")
    method: list[str] = option(["simplecil", "ranpac"], "The freeze-based methods that follow: simplecil, ranpac.")
    ranpac_width: int = option(2000, "Random features of ranpac; 10000 is published for a ViT-B/16.")
    seeds: list[int] = option([1993, 1994, 1995], "One run each: the class order and every draw follow from it.")
    class_order_seed: int | None = option(None, "Fixes the class order over all seeds; the field uses 1993.")
    device: str = option("auto", "auto takes a GPU where there is one; or cpu, cuda, cuda:1.")
    deterministic: bool = option(False, "Refuse GPU algorithms whose result varies from run to run.")
    out: str | None = option(None, "Output folder; by default runs/ with date and time.")
    overwrite: bool = option(False, "Replace the results in an output folder that was used before.")

    def check(self) -> None:
        """Raise ValueError for the first name that is unknown or value that is out of range."""
        super().check()
        for kind, given, known in (
            ("data set", [self.data], data.SOURCES),
            ("tuner", self.tuner, tuners.TUNERS),
            ("method", self.method, methods.METHODS),
        ):
            if not given or len(set(given)) != len(given):
                raise ValueError(f"{kind} is {given}, expected one or more different names of: {', '.join(known)}")
            for name in given:
                if name not in known:
                    raise unknown(kind, name, known)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0 or max(self.seeds) >= 2**32:
            raise ValueError(f"seeds is {self.seeds}, expected one or more different numbers from 0 to 2^32 - 1")
        for name in ("dynamics", "precision", "evaluate_on"):
            choices = typing.get_args(typing.get_type_hints(Config)[name])
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)


def run(config: Config, console: Console | None = None) -> Path:
    """Run every combination of tuner and method for every seed.

    A backbone is tuned once for each tuner and seed, and all methods learn from its features. After every task the
    results so far are on the disk.

    Parameters
    ----------
    config : Config
    console : Console, optional
        Where progress is shown; the terminal by default.

    Returns
    -------
    Path
        The output folder.

    Raises
    ------
    ValueError
        For a wrong option, before any work.
    FileExistsError, PermissionError
        If the output folder is already used or cannot be written, before any work.
    """
    config.check()
    console = Console() if console is None else console
    device = _device(config)
    source = data.load(config.data)
    if config.evaluate_on == "validation":
        source = source.validation()
    backbone = backbones.create(config.backbone, config.weights)  # a wrong name or file is found before any work
    backbones.check_options(backbone, config.compile, config.checkpointing)
    size = backbones.input_spec(backbone).size
    stream = Stream(source, config.classes_per_task, 0, size)
    out = _output_folder(config)
    cells = _cells(config, out, stream, environment(device))
    units = len(config.seeds) * len(config.tuner) * len(stream)
    with Progress(console, units) as progress:
        for seed in config.seeds:
            order_seed = seed if config.class_order_seed is None else config.class_order_seed
            stream = Stream(source, config.classes_per_task, order_seed, size)
            for tuner in config.tuner:
                results = {method: cells[tuner, method] for method in config.method}
                _run_seed(config, seed, tuner, stream, results, device, progress)
    for cell in cells.values():
        cell.finish()
    write_reports(out)
    return out


def write_reports(folder: Path) -> None:
    """Write the figures of every cell below a folder, and the tables and figures that join them."""
    cells = report.read_cells([folder])
    for cell in cells:
        report.write_cell_figures(cell, Path(cell.source).parent)
    report.write_summary(cells, folder)


def _run_seed(
    config: Config,
    seed: int,
    tuner_name: str,
    stream: Stream,
    results: dict[str, CellResults],
    device: torch.device,
    progress: Progress,
) -> None:
    torch.manual_seed(draw_seed(seed, "model"))
    backbone = backbones.create(config.backbone, config.weights).to(device)
    tuner = tuners.create(tuner_name, backbone, config, seed)
    learners = {name: _method(config, name, seed) for name in config.method}
    for task in stream:
        progress.begin(f"seed {seed} {tuner_name} task {task.number + 1}/{len(stream)}")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        records = _run_task(task, stream, backbone, tuner, learners, device, progress)
        counts = [len(seen.test) for seen in stream.tasks[: task.number + 1]]
        findings = [f"{name} {results[name].add_task(seed, record, counts):.2f} %" for name, record in records.items()]
        progress.advance(", ".join(findings))


def _run_task(
    task: Task,
    stream: Stream,
    backbone: nn.Module,
    tuner: Tuner,
    learners: dict[str, methods.Method],
    device: torch.device,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Tune, learn and evaluate one task; one record for each method."""
    tuned = tuner.tune(task.train, progress.track)
    started = time.perf_counter()
    features, labels = extract(backbone, task.train, device, progress)
    learning = time.perf_counter() - started
    seen = stream.tasks[: task.number + 1]
    started = time.perf_counter()
    tests = [extract(backbone, earlier.test, device, progress) for earlier in seen]
    evaluating = time.perf_counter() - started
    records = {}
    for name, learner in learners.items():
        started = time.perf_counter()
        learner.learn(features, labels)
        learned = time.perf_counter()
        accuracy = [100 * float((learner.predict(x) == y).double().mean()) for x, y in tests]
        evaluated = time.perf_counter()
        records[name] = {
            "classes": [stream.class_order[position] for position in task.classes],
            "accuracy_per_task": accuracy,
            "seconds": {
                **tuned.seconds,
                "learn": learning + learned - started,
                "evaluate": evaluating + evaluated - learned,
            },
            **tuned.fractions(),
            "peak_memory_bytes": peak_memory(device),
        }
    return records


@torch.no_grad()
def extract(backbone: nn.Module, images: TaskImages, device: torch.device, progress: Progress) -> tuple[Tensor, Tensor]:
    """Features float32 ``[n, d]`` and labels int64 ``[n]`` of all images, without augmentation, on the device."""
    backbone.eval()
    loader = batches(images, EVALUATION_BATCH, None)
    dtype = next(backbone.parameters()).dtype
    tracked = progress.track(loader, "extract", len(loader))
    features = [backbone(pixels.to(device, dtype)).float() for pixels, _ in tracked]
    return torch.cat(features), images.labels.to(device)


def _method(config: Config, name: str, seed: int) -> methods.Method:
    options: dict[str, Any] = {}
    if methods.METHODS[name].draws:
        options["seed"] = draw_seed(seed, "method", name)
    if name == "ranpac":
        options["width"] = config.ranpac_width
    return methods.create(name, **options)


def _device(config: Config) -> torch.device:
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {config.device!r} cannot be used: {error}") from error
    torch.use_deterministic_algorithms(config.deterministic)
    return device


def _output_folder(config: Config) -> Path:
    """The folder, made and writable, without results of an earlier run."""
    out = Path(config.out) if config.out else Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"output folder {out} is a file; choose another with --out")
    used = sorted(out.iterdir()) if out.exists() else []
    if used and not config.overwrite:
        raise FileExistsError(f"output folder {out} is already used; choose another with --out, or give --overwrite")
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output folder {out} cannot be written: no permission for {existing}; choose another with --out"
        )
    for path in used:
        if (path / "results.json").is_file():
            shutil.rmtree(path)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _cells(
    config: Config, out: Path, stream: Stream, environment: dict[str, Any]
) -> dict[tuple[str, str], CellResults]:
    cells = {}
    for tuner in config.tuner:
        for method in config.method:
            folder = out / f"{config.data}-{tuner}-{method}"
            folder.mkdir()
            own = dataclasses.replace(config, tuner=[tuner], method=[method])
            described = _described(own, stream)
            cells[tuner, method] = CellResults(folder, described, environment)
            write_atomically(folder / "config.yaml", to_yaml(own))
    return cells


def _described(config: Config, stream: Stream) -> dict[str, Any]:
    """A cell's configuration as it stands in results.json."""
    tuning = {field.name: getattr(config, field.name) for field in dataclasses.fields(TuningOptions)}
    method: dict[str, Any] = {"name": config.method[0]}
    if config.method[0] == "ranpac":
        method["width"] = config.ranpac_width
    return {
        "data": {
            "name": config.data,
            "tasks": len(stream),
            "classes_per_task": len(stream.tasks[0].classes),
            "evaluated_on": config.evaluate_on,
        },
        "backbone": {"name": config.backbone, "weights": config.weights},
        "tuner": {"name": config.tuner[0], **tuning},
        "method": method,
        "seeds": config.seeds,
        "class_order_seed": config.class_order_seed,
        "deterministic": config.deterministic,
    }


def to_yaml(config: Config) -> str:
    """The configuration as ``mist run`` reads it; it names no output folder, so a copy of it can be run anywhere."""
    import yaml

    values = dataclasses.asdict(config)
    del values["out"], values["overwrite"]
    return yaml.safe_dump(values, sort_keys=False)
