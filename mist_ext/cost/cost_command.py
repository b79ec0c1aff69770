"""``mist cost``: measures what a batch costs each tuner and method."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from mist_ext import backbones, methods
from mist_ext.config import Config, unused
from mist_ext.cost.cost_table import CostTable
from mist_ext.cost.measuring import Bench, Cost, Kind
from mist_ext.cost.noise import SEED
from mist_ext.methods.options import options_by_method
from mist_ext.report import numbers
from mist_ext.report.renderers.latex import latex
from mist_ext.report.renderers.markdown import markdown
from mist_ext.report.renderers.spreadsheet import csv_text
from mist_ext.report.renderers.terminal import Terminal
from mist_ext.runs.context import method_options, used_device
from mist_ext.system.files import write_atomically
from mist_ext.system.names import say
from mist_ext.system.progress import Progress
from mist_ext.system.suggest import unknown

FORMS = {
    ".md": lambda table: markdown(table.tables),
    ".tex": lambda table: latex(table.tables),
    ".csv": lambda table: csv_text(table.tables),
    ".json": CostTable.json,
}


def cost(
    options: Config,
    image_size: int | None,
    repeats: int,
    file: str | None,
    console: Console,
    named: Collection[str] = (),
) -> CostTable:
    """Measure what a batch costs each tuner and each method, one after the other, and print it.

    Parameters
    ----------
    options : Config
        Of backbone, tuners, methods and how they are computed.
    image_size : int or None
        Height and width of the images; None for those that the backbone was made for.
    repeats : int
        Timed steps of each phase.
    file : str or None
        Where the table is written, in the form that its ending names.
    console : Console
    named : collection of str
        Options that were given; of these it says which change nothing.

    Raises
    ------
    ValueError
        For a wrong option, before any work.
    FileNotFoundError
        If there is no folder for the file, before any work.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected 1 or more timed batches")
    options.check()
    if file is not None:
        _check_file(Path(file))
    own = options_by_method(options.method_options, options.method)
    for name in options.method:
        methods.create(name, **method_options(options, name, SEED))  # which finds a wrong value before any work
    backbone = backbones.create(options.backbone, options.weights)
    backbones.check_options(backbone, options.compile, options.checkpointing)
    bench = Bench(options, used_device(options), _image_size(backbone, options.backbone, image_size), repeats)
    del backbone
    looked_at = {*named} - {"batch_size"}  # on which every method is measured
    for told in unused.unused(options, looked_at, of_methods=own).values():
        say(console, told, "yellow")
    tuners: list[tuple[Kind, str]] = [("tuner", name) for name in options.tuner]
    kinds = [*tuners, *(("method", name) for name in options.method)]
    costs: list[Cost] = []
    with Progress(console, total=len(kinds)) as progress:
        progress.begin("warm up")
        bench.warm_up()
        for kind, name in kinds:
            progress.begin(f"{kind} {name}")
            found = bench.costs(kind, name, progress.track)
            costs += found
            progress.advance(_finding(found))
    table = CostTable(bench, costs)
    console.print()
    console.print(Terminal(table.tables))
    if file is not None:
        write_atomically(file, FORMS[Path(file).suffix](table))
        say(console, f"Table: {file}")
    return table


def _check_file(path: Path) -> None:
    if path.suffix not in FORMS:
        raise unknown("ending of --out", path.suffix or path.name, FORMS)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"out is {str(path)!r}, but {path.parent} is no folder; create it first")
    if path.is_dir():
        raise IsADirectoryError(f"out is {str(path)!r}, a folder; expected a file that ends with {', '.join(FORMS)}")


def _image_size(backbone: nn.Module, name: str, given: int | None) -> int:
    """Return the size to measure with; ValueError for one that the backbone does not take."""
    made_for = backbones.input_spec(backbone).size
    if given is None or given == made_for:
        return made_for
    try:  # where shapes alone are computed
        copy.deepcopy(backbone).to("meta").eval()(torch.empty(2, 3, given, given, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"image_size is {given}, which backbone {name!r} does not take ({str(error).splitlines()[0]}); leave it "
            f"out for {made_for}, which it was made for"
        ) from error
    return given


def _finding(costs: list[Cost]) -> str:
    parts = [f"{cost.phase} {numbers.seconds(1000 * cost.steps.seconds)} ms" for cost in costs if cost.steps]
    return ", ".join(parts) or costs[0].reason or "does no work"
