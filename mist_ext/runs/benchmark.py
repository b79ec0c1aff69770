"""Whole experiments, stream x backbone x tuner x method x seed: begin them or go on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

import mist_ext
from mist_ext import config, data, methods, report
from mist_ext.config import Config, unused
from mist_ext.distributed import agreement, ranks
from mist_ext.results import manifest
from mist_ext.results.manifest import CHECKPOINTS
from mist_ext.runs import checkpoint, experiment_results, run_folder
from mist_ext.runs.context import RunContext
from mist_ext.runs.task_loop import TaskLoop
from mist_ext.system import lock, names, shortage

OF_A_MACHINE = ("device", "workers", "image_memory")  # in which ranks may differ
DRAWING = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")  # that shape data and draws


def run(options: Config, console: Console | None = None, named: Collection[str] = ()) -> Path:
    """Run every combination of tuner and method for every seed.

    A backbone is tuned once for each tuner and seed, and all methods learn from its features. After every task the
    results so far are on the disk. Where a torchrun has started several processes (`distributed.launch.processes`), all
    call this with the same options and work on the run together; rank 0 writes and shows progress.

    Parameters
    ----------
    options : Config
    console : Console, optional
        Where progress is shown; the terminal by default.
    named : collection of str
        Options that were given as flags. Of these, and of those that differ from their defaults, the run says which
        change nothing.

    Returns
    -------
    Path
        The output folder.

    Raises
    ------
    ValueError
        For a wrong option, before any work.
    FileNotFoundError
        If the data is not where it is looked for, before any work.
    FileExistsError, PermissionError
        If the output folder is already used, or holds what no run has written, or cannot be written, before any work.
    """
    console = _console(console)
    _require_alike("run", dataclasses.asdict(options))
    agreement.everywhere(options.check)
    if options.shard and ranks.size() == 1:
        raise ValueError(
            "shard is True, but this is the only process, so there is nothing to spread the backbone over; start "
            "several by torchrun --nproc-per-node 4 -m mist_ext run --shard ..., or leave shard out"
        )
    options = run_folder.absolute(options)
    context = _context(options, console)
    own = {name: methods.options_of(name) for name in options.method}
    if options.preset is not None:
        names.say(console, f"settings are those of --preset {options.preset}, and what is given besides")
    if options.images_per_class is not None:
        most = f"at most {options.images_per_class} of a class (--images-per-class)"
        names.say(console, f"{len(context.source.train):,} training images are used: {most}")
    for told in unused.unused(options, {*named, *unused.given(options)}, ranks.size(), own).values():
        names.say(console, told, "yellow")
    with ExitStack() as stack:
        out = agreement.on_first(lambda: stack.enter_context(run_folder.begun(options)))
        _claim(out, context)
        TaskLoop(context, out).run()
        return _finished(out)


def resume(
    folder: str | os.PathLike[str], console: Console | None = None, figures: bool = True, **changes: Any
) -> Path:
    """Go on with a run that was interrupted; it ends as if it never had been.

    Parameters
    ----------
    folder : path-like
        The run's output folder.
    console : Console, optional
    figures : bool
        Whether tables and figures are made at the end.
    **changes
        Options that results do not depend on, such as ``device`` or ``workers``, and new paths of what was moved:
        ``data`` of a folder of images, ``weights`` of a file. Others may be given if they have the values that they
        had.

    Returns
    -------
    Path
        The output folder.

    Raises
    ------
    ValueError
        If an option differs that results depend on, or images or weights that were moved are not the same, or all
        checkpoints are damaged; or if another process works on the run.
    FileNotFoundError
        If no run was begun there, or its images or weights are no longer where they were.
    """
    console = _console(console)
    out = Path(folder)
    _require_alike("resume", {"folder": str(out), **changes})
    agreement.everywhere(lambda: run_folder.read_config(out))  # no lock is put where no run is

    say = partial(names.say, console)

    with ExitStack() as stack:
        agreement.on_first(lambda: stack.enter_context(lock.locked(out)))
        options = agreement.everywhere(lambda: _options_of(out, changes))
        context = _context(options, console, agreement.on_first(lambda: run_folder.data_name(out)))
        if run_folder.finished(experiment_results.experiment_folders(out, context.source.name, options)):
            say(f"The run in {out} is finished; nothing to go on with.")
            return _finished(out, figures)  # which may be where it was interrupted
        saved = agreement.everywhere(lambda: checkpoint.load_latest(out / CHECKPOINTS, say))
        if saved is not None:
            agreement.everywhere(lambda: _check_origin(saved, context))
            kind = saved["weight_gradients"]
            context.options = dataclasses.replace(context.options, weight_gradients=kind)  # whatever auto is here
        elif any(path.is_file() for path in out.glob("*/results.json")):
            say("There is no checkpoint: the run begins anew.")
        _claim(out, context)
        TaskLoop(context, out).run(saved)
        return _finished(out, figures)


def _console(console: Console | None) -> Console:
    """Return where rank 0 shows progress, and the other ranks nothing."""
    return (console or Console()) if ranks.is_first() else Console(quiet=True)


def _require_alike(command: str, options: dict[str, Any]) -> None:
    """Refuse ranks that were started to do different things, before any of them does something."""
    if ranks.size() == 1:
        return
    agreement.require_same({"command": command})
    own = {name: value for name, value in options.items() if name not in OF_A_MACHINE}
    versions = {f"{name}'s version": metadata.version(name) for name in DRAWING}
    agreement.require_same({**own, "mist_ext's version": mist_ext.__version__, **versions})


def _options_of(out: Path, changes: dict[str, Any]) -> Config:
    """Return the options of the run in a folder, with those that may change."""
    before = run_folder.read_config(out)
    options = run_folder.absolute(dataclasses.replace(before, **changes))
    try:
        options.check()
    except TypeError as error:
        raise ValueError(f"{out / run_folder.CONFIG} holds a value of a wrong type: {error}") from error
    if different := config.differing(options, run_folder.moved(before, options)):
        raise ValueError(
            f"the run in {out} has another configuration: {'; '.join(different)}. Leave these options out, or start a "
            "new run with another --out"
        )
    run_folder.require_there(out, options)
    return options


def _claim(out: Path, context: RunContext) -> None:
    """Name what the run will write, and what it works on, before it does."""
    options, source = context.options, context.source
    experiments = experiment_results.experiment_folders(out, source.name, options)
    files = manifest.of_experiments(experiments, options.tuner, options.seeds)
    weights = context.weights if run_folder.weights_file(options) else None
    agreement.on_first(lambda: run_folder.claim(out, files, source.name, source.fingerprint(), weights))


def _context(options: Config, console: Console, name: str | None = None) -> RunContext:
    """Return what the run works on, the same on every rank; the data set has another name where it was moved."""
    if options.download:
        from mist_ext.data.download import fetch

        agreement.on_first(lambda: fetch(options.data, data.root_folder(options.data_root), console))

    def load() -> RunContext:
        with shortage.explained("loading data and backbone"):
            return RunContext.of(options, console, name)

    context = agreement.everywhere(load)
    agreement.require_same({"the data": context.source.fingerprint(), "the backbone": context.weights})
    return context


def _check_origin(saved: dict[str, Any], context: RunContext) -> None:
    """Raise ValueError if a checkpoint was written by another version, or on other data."""
    version = saved.get("version")
    if version != mist_ext.__version__:
        raise ValueError(f"the checkpoint was written by mist_ext {version}, this is {mist_ext.__version__}")
    run_folder.require_same_data(context.source.fingerprint(), saved.get("data"))
    if (kind := saved.get("weight_gradients")) not in ("sampled", "dense"):
        raise ValueError(f"the checkpoint's weight_gradients is {kind!r}, expected sampled or dense")


def _finished(out: Path, figures: bool = True) -> Path:
    """Write the reports of a run whose experiments are complete, which then needs no checkpoint."""
    if ranks.is_first():
        if figures:
            with shortage.explained("drawing tables and figures", f"; mist report {out} draws them again"):
                write_reports(out)
        checkpoint.remove(out / CHECKPOINTS)
    return out


def write_reports(folder: Path) -> None:
    """Write the figures of every experiment below a folder, and the tables, figure and page that join them."""
    report.write_report(report.read_experiments([folder]), folder)
