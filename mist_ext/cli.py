"""The command ``mist``: run, sweep, predict, report, data, info."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser

from mist_ext.suggest import unknown


class Parser(ArgumentParser):
    """jsonargparse's parser, whose errors are one sentence and suggest the nearest options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and leave with status 2."""
        _fail(_with_suggestion(message, _flags(self)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``mist``; returns the exit status."""
    parser = Parser(prog="mist", description="Mutual Information-guided Sparse Tuning: continual-learning benchmarks.")
    commands = parser.add_subcommands(dest="command", required=True)
    run = run_parser()
    commands.add_subcommand("run", run, help="run a benchmark: data, backbone, tuners, methods, seeds")
    commands.add_subcommand("sweep", sweep_parser(), help="run every point of a grid of options, and compare them")
    commands.add_subcommand("predict", predict_parser(), help="name what is on images, with a trained classifier")
    commands.add_subcommand("report", report_parser(), help="table and figures of finished or interrupted runs")
    data = Parser(description="Data sets on the disk.")
    commands.add_subcommand("data", data, help="examine a data set on the disk")
    data.add_subcommands(dest="action", required=True).add_subcommand(
        "check", check_parser(), help="layout, counts, unreadable images, images in both parts"
    )
    commands.add_subcommand(
        "info", Parser(description="Versions, backend and devices."), help="versions, backend and devices"
    )
    given = _yaml_as_option(list(sys.argv[1:] if arguments is None else arguments))
    try:
        if given[:1] == ["run"]:
            run.set_defaults(**_basis(given[1:]))
        chosen = parser.parse_args(given)
        return COMMANDS[chosen.command](chosen[chosen.command])
    except (ValueError, OSError, MemoryError) as error:
        if getattr(error, "on_every_rank", False):
            _fail_together(str(error))
        _fail(str(error) or "memory ran out")  # which a MemoryError leaves unsaid
    except RuntimeError as error:
        from mist_ext import shortage

        told = shortage.told(error)
        if told is None:
            raise
        _fail(str(told))
    except KeyboardInterrupt as interruption:
        folder = getattr(interruption, "folder", None)
        how = RESUMING.get(given[0]) or (f"; go on with mist run --resume {folder}" if folder else "")
        if not _rank():
            print(f"mist: interrupted{how}", file=sys.stderr)
        return 128 + getattr(interruption, "signal", signal.SIGINT)


def run_parser() -> ArgumentParser:
    """One flag for each field of `mist_ext.config.Config`; a YAML file holds the same names."""
    from mist_ext.config import Config

    parser = Parser(
        description="Run every combination of tuner and method for every seed. Options come from the YAML file "
        "given as first argument (mist run CONFIG.yaml), then from flags; both know the same names."
    )
    parser.add_argument("--config", action="config", help="YAML file with options; also as first argument")
    parser.add_argument(
        "--resume",
        type=str | None,
        default=None,
        help="output folder of an interrupted run to go on with; other options as they were, or left out",
    )
    for field in sorted(dataclasses.fields(Config), key=lambda field: field.name not in Config.__annotations__):
        _add_option(parser, field.name)
    return parser


def sweep_parser() -> ArgumentParser:
    """A grid, and where and how it is run."""
    parser = Parser(
        description="Run every point of a grid in a process of its own, and join them in one table: mean and std over "
        "seeds, gains over the tuner none with a paired t-test, and a figure where one number was swept. The grid is "
        "YAML: below `fixed` any options of mist run with their value, below `axes` any with a list of values. Exit "
        "status 1 if a point failed."
    )
    parser.add_argument("grid", type=str, help="YAML file with fixed and axes")
    parser.add_argument(
        "--out", type=str | None, default=None, help="output folder; by default below runs/, named after the grid"
    )
    parser.add_argument(
        "--jobs",
        type=int | None,
        default=None,
        help="runs at a time, which share the cores; by default one for each core, on few cores the last ones "
        "together, or one where they use a GPU",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip what is finished in the output folder, go on with what was interrupted, repeat what failed",
    )
    return parser


def predict_parser() -> ArgumentParser:
    """A run and any number of images."""
    parser = Parser(description="Name what is on images: the best classes and their scores.")
    parser.add_argument("run", type=str, help="folder of a cell, or of a run that has one only")
    parser.add_argument("images", nargs="+", type=str, help="paths of images")
    parser.add_argument("--top", type=int, default=5, help="how many classes are shown for each image")
    parser.add_argument("--seed", type=int | None, default=None, help="whose classifier; by default the first saved")
    return parser


def report_parser() -> ArgumentParser:
    """Any number of run folders."""
    parser = Parser(
        description="Print the table of any number of runs, and write it, figures and a page as files. A "
        "folder without results is named and left out; exit status 1 if none has any."
    )
    parser.add_argument("folders", nargs="+", type=str, help="output folders of mist run, or single cells' folders")
    parser.add_argument(
        "--out",
        type=str | None,
        default=None,
        help="where the joint table, figure and report.html go; by default the only folder given",
    )
    parser.add_argument(
        "--format",
        type=Literal["text", "markdown", "csv", "latex"],
        default="text",
        help="how the table is printed; for other forms than text nothing else is printed, and files need --out",
    )
    return parser


def check_parser() -> ArgumentParser:
    """A data source, and those options of `mist run` that say where it is."""
    parser = Parser(
        description="Say which layout of a data set is there, compare its counts with the published ones, read every "
        "image, and look for images in both parts. Exit status 1 if something is wrong."
    )
    parser.add_argument("source", type=str, help="digits, cifar100, cub200, ..., or folder:PATH; as --data of mist run")
    for name in ("data_root", "test_fraction", "download"):
        _add_option(parser, name)
    return parser


def run_command(options: Any) -> int:
    """``mist run``."""
    from rich.console import Console

    from mist_ext import experiment, report
    from mist_ext.config import Config
    from mist_ext.distributed import launch, ranks

    values = options.as_dict()
    values.pop("config", None)
    folder = values.pop("resume")
    if folder is not None and (Path(values["out"]) != Path(folder) or values["overwrite"]):
        raise ValueError(f"--resume {folder} goes on in that folder; leave --out and --overwrite out")
    console = Console()
    with launch.processes():
        if folder is None:
            out = experiment.run(Config(**values), console)
        else:
            out = experiment.resume(folder, console, **values)
        if ranks.is_first():
            _print_report(report.read_cells([out]), console)
            console.print(f"Results, tables and figures: {out}", highlight=False, soft_wrap=True)
    return 0


def sweep_command(options: Any) -> int:
    """``mist sweep``."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mist_ext.sweep import sweep
    from mist_ext.sweep.table import LEGEND

    out = options.out or str(Path("runs") / Path(options.grid).stem)
    if _of_several() and "RANK" in os.environ:
        raise ValueError(
            "mist sweep starts processes of its own, one for each run, and cannot be started by torchrun; start it as "
            "it is, or torchrun a single mist run"
        )
    console = Console()
    made = sweep(options.grid, out, options.jobs, options.resume, console)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold cyan")
    for place, heading in enumerate(made.headings):
        table.add_column(heading, justify="right" if place >= made.headings.index("A_avg") else "left")
    for line in made.lines():
        table.add_row(*map(Text, line))
    console.print(Text(f"\n{made.title()}", style="bold"))
    console.print(table)
    for note in made.notes():
        console.print(Text(note, style="yellow" if note.startswith("failed") else ""), soft_wrap=True)
    console.print(Text(LEGEND, style="dim"))
    console.print(f"Table and figure: {out}", highlight=False, soft_wrap=True)
    return 1 if made.failures else 0


def predict_command(options: Any) -> int:
    """``mist predict``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mist_ext import trained

    if options.top < 1:
        raise ValueError(f"top is {options.top}, expected at least 1 class")

    missing = [image for image in options.images if not Path(image).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} is no file; give the paths of images")
    classifier = trained.load(options.run, options.seed)
    console = Console()
    for image, best in zip(options.images, classifier.predict(options.images, options.top), strict=True):
        console.print(image, style="bold", highlight=False, soft_wrap=True, markup=False)
        table = Table("class", "score", box=None, padding=(0, 2, 0, 0))
        for name, score in best:
            table.add_row(escape(name), f"{score:.4f}")
        console.print(table)
    return 0


def report_command(options: Any) -> int:
    """``mist report``."""
    from rich.console import Console

    from mist_ext import report

    cells = report.read_cells(options.folders, lambda why: print(f"mist: {why}", file=sys.stderr))
    if not cells:
        return 1
    if options.format != "text":
        sys.stdout.write(report.as_text(cells, options.format))
        if options.out is not None:
            report.write_report(cells, options.out)
        return 0
    console = Console()
    _print_report(cells, console)
    out = options.out or (options.folders[0] if len(options.folders) == 1 else None)
    report.write_report(cells, out)
    if out is None:
        console.print("Give --out FOLDER for the joint table, figure and report.html as files.")
    else:
        console.print(f"Tables, figures and report.html: {out}", highlight=False, soft_wrap=True)
    return 0


def data_command(options: Any) -> int:
    """``mist data check``."""
    from rich.console import Console

    from mist_ext.data import check_command

    given = options.check
    return check_command.check(given.source, given.data_root, given.test_fraction, given.download, Console())


def info_command(_options: Any) -> int:
    """``mist info``."""
    from rich.console import Console
    from rich.table import Table

    from mist_ext.info import facts

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts():
        table.add_row(name, value)
    Console().print(table)
    return 0


COMMANDS = {
    "run": run_command,
    "sweep": sweep_command,
    "predict": predict_command,
    "report": report_command,
    "data": data_command,
    "info": info_command,
}


# What an interrupted command says about going on.
RESUMING = {"sweep": "; go on with the same command and --resume"}


def _add_option(parser: ArgumentParser, name: str) -> None:
    """The flag of a field of `mist_ext.config.Config`."""
    from mist_ext.config import Config

    kind: Any = typing.get_type_hints(Config)[name]
    field = Config.__dataclass_fields__[name]
    several: dict[str, Any] = {}
    if typing.get_origin(kind) is list:
        kind, several = typing.get_args(kind)[0], {"nargs": "+"}
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        parser.add_argument(flag, action="store_true", help=field.metadata["help"])
    else:
        default = getattr(Config(), name)
        parser.add_argument(flag, type=kind, default=default, help=field.metadata["help"], **several)


def _print_report(cells: Sequence[Any], console: Any) -> None:
    from mist_ext import report

    console.print()
    console.print(report.table(cells))


def _flags(parser: ArgumentParser) -> list[str]:
    """All flags of a parser and of its subcommands."""
    flags = []
    for action in parser._actions:
        flags += [name for name in action.option_strings if name.startswith("--")]
        for child in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            flags += _flags(child)
    return flags


def _yaml_as_option(arguments: list[str]) -> list[str]:
    """``mist run FILE ...`` as ``mist run --config FILE ...``."""
    if len(arguments) > 1 and arguments[0] == "run" and not arguments[1].startswith("-"):
        return ["run", "--config", *arguments[1:]]
    return arguments


def _basis(arguments: list[str]) -> dict[str, Any]:
    """What stands below the options of a command line: those of the run that goes on, or of a preset."""
    from mist_ext import presets, run_folder

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--resume", "--preset", "--config"):
        early.add_argument(flag, nargs="?")
    known, _ = early.parse_known_args(arguments)
    if known.resume is not None:
        return dataclasses.asdict(run_folder.read_config(Path(known.resume)))
    name = known.preset
    if name is None and known.config is not None and Path(known.config).is_file():
        import yaml

        try:
            content = yaml.safe_load(Path(known.config).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{known.config} is no valid YAML: {error}") from error
        name = content.get("preset") if isinstance(content, dict) else None
    if name is not None and not isinstance(name, str):
        raise ValueError(f"preset is {name!r}, expected a name such as mist/cifar100")
    return presets.preset(name) if name is not None else {}


def _with_suggestion(message: str, options: list[str]) -> str:
    """jsonargparse's message, with the nearest names where it is about an unknown option or command."""
    if found := re.search(r"[Uu]nrecognized arguments: (--[^\s=]+)", message):
        return str(unknown("option", found[1], options))
    if found := re.search(r"does not accept option '([^']+)'", message):
        return str(unknown("option", found[1], [name.removeprefix("--").replace("-", "_") for name in options]))
    if found := re.search(r"argument command: invalid choice: '([^']+)'", message):
        return str(unknown("command", found[1], COMMANDS))
    return message


def _rank() -> int:
    """Which process of a torchrun this is; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) if _of_several() else 0


def _of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0").isdecimal()


def _fail(message: str) -> NoReturn:
    who = f"rank {_rank()}: " if _of_several() and not message.startswith("rank ") else ""
    print(f"mist: {who}{message}", file=sys.stderr)
    raise SystemExit(2)


def _fail_together(message: str) -> NoReturn:
    """Of what happens on every rank of a torchrun, one tells."""
    if not _rank():
        print(f"mist: {message}", file=sys.stderr)
    raise SystemExit(2)
